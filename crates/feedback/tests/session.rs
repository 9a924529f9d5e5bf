//! A sitting as a state machine.

mod support;

use support::{Sitting, annotation, choice, item, pairs, ranking, time};
use togi_feedback::{
    Effect, Entry, Key, PlanOptions, Verdict,
    open::{LONGEST_REASON, Phase},
    scroll::Extent,
};

fn sitting(n: usize) -> Sitting {
    Sitting::new(pairs(n), &[], false, PlanOptions::default())
}

#[test]
fn a_choice_is_recorded_in_the_order_of_the_data() {
    let mut sitting = sitting(40);
    let mut swapped = 0;
    for _ in 0..40 {
        let shown = sitting.session.open().unwrap().1.shown.clone();
        sitting.keys("b2");
        let line = sitting.annotations().pop().unwrap();
        assert_eq!(line.check(), Ok(()));
        assert_eq!(line.shown, shown);
        assert_eq!(line.verdict, choice(shown[1], 2));
        assert!(line.started < line.ended);
        swapped += usize::from(shown == [1, 0]);
    }
    assert!((8..32).contains(&swapped), "{swapped}");
    assert!(sitting.session.open().is_none());
    assert_eq!(sitting.session.progress(), (40, 40));
    sitting.keys("ab1ts");
    assert_eq!(sitting.lines.len(), 40);
    sitting.keys("q");
    assert!(sitting.quit);
}

#[test]
fn a_strength_counts_after_a_choice_only_and_the_choice_can_change() {
    let mut sitting = sitting(1);
    sitting.keys("123cz");
    assert!(sitting.lines.is_empty());
    sitting.keys("a");
    sitting.press(Key::Esc);
    assert_eq!(sitting.session.open().unwrap().1.phase, Phase::Choosing);
    sitting.keys("3");
    assert!(sitting.lines.is_empty());
    sitting.keys("AB3");
    let line = sitting.annotations().pop().unwrap();
    assert_eq!(line.verdict, choice(line.shown[1], 3));
}

#[test]
fn nothing_moves_on_before_the_line_is_in_the_log() {
    let mut sitting = sitting(2);
    let first = sitting.session.open().unwrap().0.id.clone();
    assert!(matches!(
        sitting.session.press(Key::Char('t'), time(1)),
        Effect::Append(_)
    ));
    for key in ['a', '1', 't', 'u', 'q'] {
        assert_eq!(sitting.session.press(Key::Char(key), time(2)), Effect::None);
    }
    assert_eq!(sitting.session.open().unwrap().0.id, first);
    assert_eq!(sitting.session.press(Key::Interrupt, time(3)), Effect::Quit);
    sitting.session.appended(time(3));
    assert_ne!(sitting.session.open().unwrap().0.id, first);
}

#[test]
fn a_reason_is_typed_kept_and_dropped() {
    let mut sitting = sitting(3);
    sitting.keys("ar");
    sitting.keys("quick 日本e\u{301}");
    sitting.press(Key::Backspace);
    sitting.press(Key::Enter);
    sitting.keys("rxyz");
    sitting.press(Key::Esc);
    assert_eq!(sitting.session.open().unwrap().1.phase, Phase::Strength);
    sitting.keys("1");
    assert_eq!(
        sitting.annotations()[0].reason.as_deref(),
        Some("quick 日本")
    );
    sitting.keys("r");
    sitting.press(Key::Paste("a\n\u{1b}b".repeat(LONGEST_REASON)));
    sitting.press(Key::Enter);
    sitting.keys("s");
    let reason = sitting.annotations()[1].reason.clone().unwrap();
    assert!(reason.starts_with("a  ba") && reason.chars().count() <= LONGEST_REASON);
    sitting.press(Key::Paste("at".to_owned()));
    assert_eq!(sitting.lines.len(), 2);
    sitting.keys("s");
    assert_eq!(sitting.annotations()[2].reason.as_deref(), Some("skipped"));
    assert_eq!(sitting.annotations()[2].verdict, Verdict::Skipped);
}

#[test]
fn a_ranking_takes_all_answers_and_ties() {
    let one = || vec![item("q", &["w", "x", "y", "z"])];
    let ranked = |keys: &str| {
        let mut sitting = Sitting::new(one(), &[], true, PlanOptions::default());
        sitting.keys(keys);
        let line = sitting.annotations().pop().unwrap();
        assert_eq!(line.check(), Ok(()));
        let Verdict::Ranking { ranks, .. } = &line.verdict else {
            return (line.verdict, vec![]);
        };
        let shown = line.shown.iter().map(|answer| ranks[*answer]).collect();
        (line.verdict.clone(), shown)
    };
    assert_eq!(ranked("cadb1").1, [2, 4, 1, 3]);
    assert_eq!(ranked("c=abd3").1, [1, 2, 1, 3]);
    assert_eq!(ranked("c==abd3").1, [2, 3, 1, 4]);
    assert_eq!(ranked("=ca=b=d3").1, [2, 2, 1, 2]);
    assert_eq!(ranked("ccaacdb1").1, [2, 4, 1, 3]);
    assert_eq!(ranked("c=a=b=d").0, Verdict::Tie);
    assert_eq!(ranked("cat").0, Verdict::Tie);
    assert_eq!(ranked("cs").0, Verdict::Skipped);
    let mut sitting = Sitting::new(one(), &[], true, PlanOptions::default());
    sitting.keys("c=adb");
    assert_eq!(
        sitting.session.open().unwrap().1.picks.words(),
        "C = A > D > B"
    );
    for left in ["C = A > D", "C = A", "C =", "C", "", ""] {
        sitting.press(Key::Backspace);
        assert_eq!(sitting.session.open().unwrap().1.picks.words(), left);
    }
}

#[test]
fn among_several_the_best_is_chosen_without_ranking() {
    let mut sitting = Sitting::new(
        vec![item("q", &["x", "y", "z"])],
        &[],
        false,
        PlanOptions::default(),
    );
    sitting.keys("=c2");
    let line = sitting.annotations().pop().unwrap();
    assert_eq!(line.verdict, choice(line.shown[2], 2));
    let mut two = Sitting::new(pairs(1), &[], true, PlanOptions::default());
    two.keys("=b2");
    assert!(matches!(
        two.annotations()[0].verdict,
        Verdict::Choice { .. }
    ));
}

#[test]
fn what_was_judged_can_be_taken_back_and_comes_again() {
    let mut sitting = sitting(3);
    sitting.keys("u");
    assert!(sitting.lines.is_empty());
    sitting.keys("a1t");
    let before = sitting.annotations();
    sitting.keys("u");
    let Some(Entry::Retraction(retraction)) = sitting.lines.last() else {
        panic!("no retraction");
    };
    assert_eq!(retraction.retracted, before[1].id);
    assert_eq!(sitting.session.open().unwrap().0.id, before[1].item);
    assert_eq!(sitting.session.open().unwrap().1.shown, before[1].shown);
    assert_eq!(sitting.session.progress(), (1, 3));
    assert_eq!(sitting.session.saved(), 1);
    sitting.keys("u");
    assert_eq!(sitting.session.progress(), (0, 3));
    assert_eq!(sitting.session.open().unwrap().0.id, before[0].item);
    sitting.keys("ttt");
    assert_eq!(sitting.session.progress(), (3, 3));
    let mut ids: Vec<String> = sitting.annotations().into_iter().map(|a| a.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn a_sitting_goes_on_where_the_annotator_stopped() {
    let items = pairs(10);
    let options = PlanOptions {
        limit: Some(6),
        repeat: 0.0,
        seed: 5,
    };
    let mut first = Sitting::new(items.clone(), &[], false, options);
    first.keys("a1b2ts");
    assert_eq!(first.session.progress(), (4, 6));
    let mut log = first.annotations();
    log.push(annotation(&items[0], "bob", 0, Verdict::Tie));
    log.push(annotation(
        &item("of another file", &["x", "y"]),
        "ann",
        0,
        Verdict::Tie,
    ));
    let mut second = Sitting::new(items, &log, false, options);
    assert_eq!(second.session.progress(), (4, 6));
    second.keys("tt");
    assert_eq!(second.session.progress(), (6, 6));
    let mut judged: Vec<String> = first
        .annotations()
        .into_iter()
        .chain(second.annotations())
        .map(|a| a.item)
        .collect();
    judged.sort();
    judged.dedup();
    assert_eq!(judged.len(), 6);
    // The other sitting's can be taken back, too.
    second.keys("uuu");
    assert_eq!(second.session.progress(), (3, 6));
    assert_eq!(
        second.session.open().unwrap().0.id,
        first.annotations()[3].item
    );
}

#[test]
fn repetitions_come_later_and_not_of_what_was_skipped() {
    let options = PlanOptions {
        repeat: 1.0,
        ..PlanOptions::default()
    };
    let mut sitting = Sitting::new(pairs(3), &[], false, options);
    assert_eq!(sitting.session.progress(), (0, 6));
    sitting.keys("s");
    assert_eq!(sitting.session.progress(), (1, 5));
    sitting.keys("a1a1a1a1");
    assert_eq!(sitting.session.progress(), (5, 5));
    let passes: Vec<u32> = sitting.annotations().iter().map(|a| a.pass).collect();
    assert_eq!(passes, [0, 0, 0, 1, 1]);
    assert!(sitting.session.open().is_none());
    for _ in 0..5 {
        sitting.keys("u");
    }
    assert_eq!(sitting.session.progress(), (0, 6));
}

#[test]
fn scrolling_stops_at_both_ends() {
    let mut sitting = sitting(2);
    let mut at = |key: Key| {
        sitting.press(key);
        sitting.session.scroll()
    };
    assert_eq!(at(Key::Down), 0);
    sitting.session.set_extent(Extent {
        lines: 50,
        height: 10,
        headings: vec![0, 20, 45],
    });
    let mut at = |key: Key| {
        sitting.press(key);
        sitting.session.scroll()
    };
    assert_eq!(at(Key::Up), 0);
    assert_eq!(at(Key::PageDown), 9);
    assert_eq!(at(Key::Tab), 20);
    assert_eq!(at(Key::Tab), 40);
    assert_eq!(at(Key::Down), 40);
    assert_eq!(at(Key::BackTab), 20);
    assert_eq!(at(Key::BackTab), 0);
    assert_eq!(at(Key::End), 40);
    // A larger window shows all.
    sitting.session.set_extent(Extent {
        lines: 30,
        height: 60,
        headings: vec![0],
    });
    assert_eq!(sitting.session.scroll(), 0);
    sitting.keys("t");
    assert_eq!(sitting.session.scroll(), 0);
}

#[test]
fn support_makes_valid_lines() {
    let one = item("q", &["x", "y", "z"]);
    assert_eq!(
        annotation(&one, "ann", 0, ranking(&[1, 2, 2], 1)).check(),
        Ok(())
    );
}
