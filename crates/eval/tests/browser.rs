//! The report in a real browser. Runs where Chromium is installed, or the program that
//! `TOGI_CHROMIUM` names; `TOGI_REQUIRE_CHROMIUM` makes its absence a failure.

mod chromium;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use chromium::{Pages, browser, told};
use serde_json::json;
use togi_eval::report::{Alarm, BrowserAnswer, BrowserItem, MAX_ITEMS, Report, TokenView};

/// Markup, ends of scripts and comments, separators, a change of direction, a NUL, a long word.
const HOSTILE: &str = "</script><script>document.documentElement.dataset.hacked=1</script>\
    <img src=x onerror=\"document.documentElement.dataset.hacked=1\"><!--<script></noscript></style>\
    \u{2028}\u{2029}\u{202e}\u{0}'\"&amp;";

fn answer(system: &str, gold: f64, text: String) -> BrowserAnswer {
    let token = |text: &str, kl: f64| TokenView {
        text: text.to_owned(),
        logp: -kl.abs(),
        kl,
        reward: Some(gold * kl),
    };
    BrowserAnswer {
        system: system.to_owned(),
        text,
        scores: vec![("gold".to_owned(), gold), (HOSTILE.to_owned(), 1.0)],
        unscorable: (gold > 2.0).then(|| HOSTILE.to_owned()),
        tokens: vec![token(HOSTILE, 0.01), token(" word", -3.0), token("\n", 0.6)],
    }
}

/// Six samples; the tuned model is worse on 2 and 5.
fn report() -> Report {
    let gold = [
        (0.0, 1.0),
        (1.0, 0.25),
        (0.5, 3.0),
        (0.0, 0.0),
        (2.0, 0.5),
        (0.1, 0.2),
    ];
    let samples = gold
        .iter()
        .enumerate()
        .map(|(i, (start, tuned))| BrowserItem {
            prompt: format!("Question {} {HOSTILE} {}", i + 1, "long".repeat(400)),
            answers: vec![
                answer("sft", *start, format!("{HOSTILE} start {i}")),
                answer(
                    HOSTILE,
                    *tuned,
                    if i == 3 {
                        "Needle".to_owned()
                    } else {
                        "word ".repeat(300)
                    },
                ),
            ],
        });
    let row = |step: u32| {
        let kl = f64::from(step).sqrt();
        json!({"stage": HOSTILE, "step": step, "loss": 1.0 / kl, "objective/kl": kl, "val/kl": kl,
            (HOSTILE): kl})
    };
    Report {
        title: HOSTILE.to_owned(),
        summary: HOSTILE.to_owned(),
        samples: samples.collect(),
        alarms: vec![Alarm {
            stage: HOSTILE.to_owned(),
            step: 7,
            monitor: HOSTILE.to_owned(),
            value: 3.0,
            threshold: 2.0,
            action: HOSTILE.to_owned(),
            text: format!("{HOSTILE}{}", "x".repeat(900)),
        }],
        tables: vec![(
            HOSTILE.to_owned(),
            (
                vec![HOSTILE.to_owned(); 9],
                vec![vec![HOSTILE.to_owned(); 9]; 2],
            ),
            HOSTILE.to_owned(),
        )],
        metrics: (1..40)
            .filter_map(|s| row(s).as_object().cloned())
            .collect(),
        config: format!("{HOSTILE}\n{}", "key = 1 ".repeat(90)),
        environment: vec![(HOSTILE.to_owned(), "x".repeat(600))],
        ..Report::default()
    }
}

#[test]
fn the_page_runs_finds_sorts_and_shows() {
    let Some(program) = browser() else { return };
    let pages = Pages::new(program);
    let page = pages.write("report.html", &report().html().unwrap());
    let dom = pages.dom(&page, "", "1280,900");
    let say = |dom: &str, name: &str| told(dom, name).unwrap_or_default();
    assert_eq!(say(&dom, "ready"), "1", "{dom}");
    assert_eq!(told(&dom, "error"), None);
    assert_eq!(told(&dom, "hacked"), None, "a text became markup");
    assert_eq!(
        (say(&dom, "items"), say(&dom, "count")),
        ("6".into(), "6".into())
    );
    assert_eq!(say(&dom, "order"), "1,2,3,4,5,6");
    assert_eq!(say(&dom, "overflow"), "no");
    assert!(!dom.contains("<img"), "hostile text stays text");

    for (hash, order, sample) in [
        ("#sample-3", "1,2,3,4,5,6", "3"),
        ("#sample-999", "1,2,3,4,5,6", "1"),
        ("#q=nEEdle", "4", "4"),
        ("#q=%3C/script%3E%3Cscript%3E", "1,2,3,4,5,6", "1"),
        ("#q=nowhere", "", ""),
        ("#sort=diff&metric=gold&dir=up", "5,2,4,6,1,3", "1"),
        ("#sort=b&metric=gold&sample=5", "5,2,3,6,1,4", "5"),
        ("#sort=kl&dir=down", "1,2,3,4,5,6", "1"),
        ("#worse=1&metric=gold", "2,5", "2"),
        ("#worse=1&metric=gold&q=question+5", "5", "5"),
        (
            "#sort=constructor&dir=&metric=none&a=?&color=__proto__",
            "1,2,3,4,5,6",
            "1",
        ),
    ] {
        let dom = pages.dom(&page, hash, "1280,900");
        assert_eq!(told(&dom, "error"), None, "{hash}");
        assert_eq!(
            (say(&dom, "ready"), say(&dom, "order")),
            ("1".into(), order.into()),
            "{hash}"
        );
        assert_eq!(say(&dom, "sample"), sample, "{hash}");
    }
}

#[test]
fn keys_move_tokens_tell_their_values_and_a_phone_does_not_scroll_sideways() {
    let Some(program) = browser() else { return };
    let pages = Pages::new(program);
    let page = pages.write("report.html", &report().html().unwrap());
    let said = "out = [data.ready, data.error, data.hacked, data.width, data.overflow].join();";
    for hash in ["", "#color=kl&sort=diff", "#color=reward&sample=3"] {
        assert_eq!(pages.beside(&page, hash, 360, said), "1,,,360,no", "{hash}");
    }
    let press = "const press = (key, on = view.document.body) => on.dispatchEvent(\
        new view.KeyboardEvent('keydown', { key, bubbles: true }));";
    let moved = pages.beside(
        &page,
        "",
        1000,
        &format!("{press} press('j'); press('j'); press('k'); press('j', view.document.querySelector('#b-q'));
            out = data.sample + view.location.hash;"),
    );
    assert_eq!(moved, "2#sample-2");
    let told = pages.beside(
        &page,
        "#color=kl",
        1000,
        &format!(
            "{press} const text = view.document.querySelector('.text[tabindex]');
            const levels = Array.from(text.children, (span) => span.className).join();
            text.children[1].click(); const line = text.nextElementSibling.textContent;
            press('ArrowRight', text);
            out = levels + '|' + line + '|' + text.querySelector('.on').title.slice(0, 4)
              + '|' + view.document.querySelectorAll('#b-legend li').length;"
        ),
    );
    let told = told.replace("&quot;", "\"");
    assert_eq!(
        told,
        "z,n3,p2|\" word\": log-prob −3.000, KL −3.000, reward 0.000|\"\\n\"|8"
    );
    let typed = pages.beside(
        &page,
        "",
        1000,
        "const box = view.document.querySelector('#b-q'); box.value = 'needle';
         box.dispatchEvent(new view.Event('input')); out = data.order + view.location.hash;",
    );
    assert_eq!(typed.replace("&amp;", "&"), "4#q=needle&sample=4");
}

#[test]
fn nothing_is_fetched_even_where_markup_got_in() {
    let Some(program) = browser() else { return };
    let pages = Pages::new(program);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // Each connection is counted and closed, so that no page waits for an answer.
    thread::spawn(move || {
        for _ in server.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let markup = format!(
        "<img src=\"http://{address}/a\"><link rel=stylesheet href=\"http://{address}/b\">\
         <script>document.documentElement.dataset.hacked=1</script></main>"
    );
    let html = report().html().unwrap();
    let policy = "default-src 'none'; script-src 'sha256-";
    assert_eq!(html.matches(policy).count(), 1);
    let came = |html: &str| {
        let page = pages.write("markup.html", &html.replace("</main>", &markup));
        let dom = pages.dom(&page, "", "1000,800");
        (
            calls.load(Ordering::SeqCst) > 0,
            told(&dom, "hacked").is_some(),
        )
    };
    assert_eq!(came(&html), (false, false));
    // The same without the policy, to see that the test would have seen it.
    let open = html.replace("http-equiv=Content-Security-Policy", "name=none");
    assert_eq!(came(&open), (true, true));
}

#[test]
fn many_samples_are_bounded() {
    let Some(program) = browser() else { return };
    let pages = Pages::new(program);
    let item = BrowserItem {
        prompt: "p".to_owned(),
        answers: vec![BrowserAnswer::default()],
    };
    let report = Report {
        samples: vec![item; MAX_ITEMS + 20],
        ..Report::default()
    };
    let page = pages.write("many.html", &report.html().unwrap());
    let dom = pages.dom(&page, "#sample-500", "1280,900");
    assert_eq!(told(&dom, "error"), None);
    assert_eq!(told(&dom, "items"), Some(MAX_ITEMS.to_string()));
    assert_eq!(told(&dom, "sample"), Some("500".to_owned()));
    assert!(dom.contains("20 more were left out"));
    let empty = pages.write("empty.html", &Report::default().html().unwrap());
    let dom = pages.dom(&empty, "", "1280,900");
    assert_eq!(
        (told(&dom, "ready"), told(&dom, "error")),
        (Some("1".to_owned()), None)
    );
}
