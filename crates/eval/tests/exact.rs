//! Numbers taken from texts against the filters of lm-eval's `gsm8k` (tools/golden/exact.py).

use serde::Deserialize;
use togi_eval::exact::{Number, answer_of};

/// A text with what the strict and the flexible filter take from it, and with what a reader takes where that
/// is something else on purpose.
#[derive(Deserialize)]
struct Case {
    text: String,
    strict: Option<String>,
    flexible: Option<String>,
    #[serde(default)]
    expected: Option<String>,
    #[serde(default)]
    why: Option<String>,
}

/// A plain decimal or fraction; none of the things that [`answer_of`] has to find its way through.
fn number(text: &str) -> Option<Number> {
    let (above, below) = text.split_once('/').unwrap_or((text, "1"));
    let (whole, part) = above.split_once('.').unwrap_or((above, ""));
    let ten = 10_i128.pow(u32::try_from(part.len()).ok()?);
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    Number::new(digits, ten * below.parse::<i128>().ok()?)
}

#[test]
fn numbers_are_those_of_lm_eval_but_for_the_listed_differences() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/exact.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut alike, mut wrong) = (0, Vec::new());
    for case in &cases {
        let ours = answer_of(&case.text);
        let theirs = case.strict.as_ref().or(case.flexible.as_ref());
        let fine = match &case.why {
            None => {
                alike += 1;
                ours == theirs.map(|text| number(text).unwrap())
            }
            Some(_) => {
                // Compared as texts, as their metric does.
                ours == case.expected.as_deref().and_then(number)
                    && theirs != case.expected.as_ref()
            }
        };
        if !fine {
            wrong.push(format!("{:?}: {ours:?}, {theirs:?} there", case.text));
        }
    }
    assert!(alike >= 400 && cases.len() >= alike + 30, "{alike}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
