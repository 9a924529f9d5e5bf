//! What is drawn, at several sizes. `TOGI_SHOW_SCREENS=1` prints the screens to look at them.

mod support;

use ratatui::{Terminal, backend::TestBackend};
use support::{Sitting, annotation, item, pairs};
use togi_data::{Content, Message};
use togi_feedback::{Item, Key, PlanOptions, Verdict, annotation::item_id, view};

/// The lines on the screen, without the spaces at their ends.
fn screen(sitting: &mut Sitting, columns: u16, rows: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut extent = None;
    terminal
        .draw(|frame| extent = Some(view::draw(frame, &sitting.session)))
        .unwrap();
    sitting.session.set_extent(extent.unwrap());
    let buffer = terminal.backend().buffer();
    let lines: Vec<String> = (0..rows)
        .map(|y| {
            let mut line = String::new();
            let mut x = 0;
            while x < columns {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                // The cell after a wide character is its other half.
                x += unicode_width::UnicodeWidthStr::width(symbol).max(1) as u16;
            }
            line.trim_end().to_owned()
        })
        .collect();
    if std::env::var_os("TOGI_SHOW_SCREENS").is_some() {
        println!("{columns}x{rows}\n{}\n", lines.join("\n"));
    }
    lines
}

fn one(item: Item, ranking: bool) -> Sitting {
    Sitting::new(vec![item], &[], ranking, PlanOptions::default())
}

fn long() -> Item {
    let answer = |word: &str| {
        let lines: Vec<String> = (0..40)
            .map(|i| format!("{word} line {i} with words"))
            .collect();
        lines.join("\n")
    };
    item(
        "How do I sharpen a knife? 包丁を研ぐにはどうすればいいですか。",
        &[&answer("first"), &answer("second")],
    )
}

#[test]
fn two_answers_lie_side_by_side_where_there_is_room() {
    let mut sitting = one(item("Say hello.", &["Hello to you", "Go away"]), false);
    let wide = screen(&mut sitting, 80, 24).join("\n");
    let shown = sitting.session.open().unwrap().1.shown.clone();
    let texts = ["Hello to you", "Go away"];
    let line = wide.lines().find(|l| l.contains("Hello")).unwrap();
    assert!(line.contains(texts[0]) && line.contains('│') && line.contains(texts[1]));
    assert!(line.starts_with(texts[shown[0]]));
    for needle in [
        "0/1 done",
        "ann",
        "data.jsonl:1",
        "Answer A",
        "Answer B",
        "Say hello.",
    ] {
        assert!(wide.contains(needle), "{needle}: {wide}");
    }
    for key in ["a/b best", "t tie", "s skip", "r reason", "q quit"] {
        assert!(wide.contains(key), "{key}: {wide}");
    }
    assert!(!wide.contains("u undo"));
    let narrow = screen(&mut sitting, 50, 20);
    let at = |text: &str| narrow.iter().position(|l| l.contains(text)).unwrap();
    assert!(at("Answer A") < at(texts[shown[0]]) && at(texts[shown[0]]) < at("Answer B"));
    assert!(at("q quit") > at("Answer B"));
}

#[test]
fn every_size_has_the_question_and_the_keys() {
    let mut sitting = one(long(), false);
    for (columns, rows) in [(80, 24), (50, 20), (120, 40), (40, 12), (200, 60), (30, 10)] {
        let lines = screen(&mut sitting, columns, rows);
        let all = lines.join("\n");
        assert!(all.contains("Which answer is better?"), "{all}");
        assert!(all.contains("a/b best"), "{all}");
        assert!(all.contains("Answer A") || rows < 20, "{all}");
    }
    for (columns, rows) in [(1, 1), (10, 3), (19, 30), (80, 7), (20, 8)] {
        screen(&mut sitting, columns, rows);
    }
}

#[test]
fn a_long_item_scrolls_to_its_end_and_back_after_a_resize() {
    let mut sitting = one(long(), false);
    for (columns, rows) in [(80, 24), (50, 20)] {
        sitting.press(Key::Home);
        let lines = screen(&mut sitting, columns, rows).join("\n");
        assert!(
            lines.contains("↓ more") && lines.contains("sharpen"),
            "{lines}"
        );
        sitting.press(Key::End);
        let lines = screen(&mut sitting, columns, rows).join("\n");
        assert!(
            !lines.contains("↓ more") && lines.contains("line 39"),
            "{lines}"
        );
        sitting.press(Key::PageUp);
        let lines = screen(&mut sitting, columns, rows).join("\n");
        assert!(lines.contains("↓ more"), "{lines}");
    }
    sitting.press(Key::End);
    screen(&mut sitting, 50, 20);
    let lines = screen(&mut sitting, 200, 100).join("\n");
    assert!(
        lines.contains("sharpen") && lines.contains("line 39"),
        "{lines}"
    );
    let mut narrow = one(long(), false);
    screen(&mut narrow, 50, 20);
    narrow.press(Key::Tab);
    let lines = screen(&mut narrow, 50, 20);
    assert!(lines[1].contains("Answer A"), "{lines:?}");
    narrow.press(Key::Tab);
    assert!(screen(&mut narrow, 50, 20)[1].contains("Answer B"));
    narrow.press(Key::Down);
    assert!(screen(&mut narrow, 50, 20)[1].contains("Answer B"));
}

#[test]
fn every_line_of_a_long_item_is_on_some_page() {
    for (columns, rows) in [(80, 24), (50, 20), (30, 10)] {
        let mut sitting = one(long(), false);
        let mut seen = String::new();
        for _ in 0..100 {
            seen.push_str(&screen(&mut sitting, columns, rows).join("\n"));
            sitting.press(Key::PageDown);
        }
        for i in 0..40 {
            for word in ["first", "second"] {
                assert!(seen.contains(&format!("{word} line {i} ")), "{word} {i}");
            }
        }
    }
}

#[test]
fn what_a_terminal_would_obey_is_shown_as_text() {
    let evil = "a\u{1b}[2J\u{1b}]0;title\u{7}b\u{9b}1m\u{202e}c\rd";
    let mut item = item(evil, &[evil, "fine\u{200b}"]);
    item.place = "x\u{1b}[1m\ny".to_owned();
    let mut sitting = one(item, false);
    sitting.session.say("\u{1b}[1m");
    for (columns, rows) in [(80, 24), (50, 20)] {
        let all = screen(&mut sitting, columns, rows).concat();
        assert!(!all.chars().any(char::is_control), "{all:?}");
        assert!(!all.contains('\u{202e}') && !all.contains('\u{200b}'));
        assert!(
            all.contains("a␛[2J␛]0;title␇b<U+009B>1m<U+202E>c␍d"),
            "{all}"
        );
        assert!(all.contains("x␛[1m␤y"), "{all}");
    }
}

#[test]
fn wide_characters_keep_the_columns_straight() {
    let text = "研ぎ石を水に十分間浸してから、刃を二十度の角度で当てます。emoji 👩‍👩‍👧 too ".repeat(4);
    let mut sitting = one(item("研ぎ方は？", &[&text, "短い。"]), false);
    for columns in [76, 77, 80, 99, 120] {
        let mut bars = Vec::new();
        for line in screen(&mut sitting, columns, 24) {
            if let Some((left, _)) = line.split_once('│') {
                bars.push(unicode_width::UnicodeWidthStr::width(left));
            }
        }
        assert!(bars.len() > 4, "{bars:?}");
        assert!(bars.windows(2).all(|two| two[0] == two[1]), "{bars:?}");
    }
    for columns in 20..76 {
        screen(&mut sitting, columns, 24);
    }
}

#[test]
fn the_steps_of_a_judgement_are_said() {
    let mut sitting = Sitting::new(pairs(2), &[], false, PlanOptions::default());
    sitting.keys("b");
    let all = screen(&mut sitting, 80, 24).join("\n");
    assert!(
        all.contains("B: how much better is it?") && all.contains("1 slightly"),
        "{all}"
    );
    assert!(all.contains("Answer B  picked: best"), "{all}");
    sitting.keys("rit is shorter");
    let all = screen(&mut sitting, 50, 20).join("\n");
    assert!(
        all.contains("Why: it is shorter▏") && all.contains("Enter keeps it"),
        "{all}"
    );
    sitting.keys(&" very".repeat(200));
    let all = screen(&mut sitting, 50, 20).join("\n");
    assert!(all.contains("very▏") && all.contains("Answer A"), "{all}");
    sitting.press(Key::Enter);
    let all = screen(&mut sitting, 50, 20).join("\n");
    assert!(
        all.contains("Why: it is shorter") && all.contains('…'),
        "{all}"
    );
    sitting.keys("2");
    let all = screen(&mut sitting, 80, 24).join("\n");
    assert!(all.contains("1/2 done"), "{all}");
    assert!(
        all.contains("Saved: B, clearly better. u takes it back."),
        "{all}"
    );
    assert!(all.contains("u undo"), "{all}");
    sitting.keys("t");
    let all = screen(&mut sitting, 50, 20).join("\n");
    assert!(
        all.contains("2/2 done") && all.contains("All 2 are done"),
        "{all}"
    );
    assert!(all.contains("u undo  q quit"), "{all}");
}

#[test]
fn a_ranking_shows_what_was_picked() {
    let mut sitting = one(item("q", &["w", "x", "y", "z"]), true);
    let all = screen(&mut sitting, 80, 24).join("\n");
    assert!(
        all.contains("Rank them: which is the best?") && all.contains("a-d next best"),
        "{all}"
    );
    sitting.keys("c=a");
    let all = screen(&mut sitting, 50, 20).join("\n");
    assert!(all.contains("C = A > … which is next?"), "{all}");
    sitting.keys("db");
    let all = screen(&mut sitting, 80, 24).join("\n");
    assert!(all.contains("C = A > D > B: how much better"), "{all}");
    assert!(all.contains("Answer D  picked: 2."), "{all}");
}

#[test]
fn conversations_have_their_roles() {
    let prompt = Content::Messages(vec![
        Message::new("system", "Be brief."),
        Message::new("user", "Hi"),
    ]);
    let answer = |text| Content::Messages(vec![Message::new("assistant", text)]);
    let answers = vec![answer("Hello"), answer("What?")];
    let item = Item {
        id: item_id(&prompt, &answers),
        place: "d.jsonl:1".to_owned(),
        places: vec!["d.jsonl:1".to_owned()],
        prompt,
        answers,
    };
    let all = screen(&mut one(item.clone(), false), 50, 20).join("\n");
    assert!(all.contains("system: Be brief.\n\nuser: Hi"), "{all}");
    assert!(
        all.contains("\nHello") && !all.contains("assistant:"),
        "{all}"
    );
    let log = [annotation(&item, "ann", 0, Verdict::Tie)];
    let mut done = Sitting::new(vec![item], &log, false, PlanOptions::default());
    assert!(
        screen(&mut done, 50, 20)
            .join("\n")
            .contains("All 1 are done")
    );
}
