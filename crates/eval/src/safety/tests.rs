use super::*;

#[test]
fn our_set_is_sixty_pairs_of_ten_kinds() {
    let set = set().unwrap();
    assert_eq!(set.len(), 120);
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (place, prompt) in set.iter().enumerate() {
        let counts = kinds.entry(&prompt.kind).or_default();
        match prompt.label {
            Label::Safe => counts.0 += 1,
            Label::Unsafe => counts.1 += 1,
        }
        let other = prompt.contrast.as_deref().unwrap();
        let other = set.iter().find(|p| p.id == other).unwrap();
        assert_eq!(other.kind, prompt.kind);
        let same = set.iter().position(|p| p.prompt == prompt.prompt);
        assert_eq!(same, Some(place));
    }
    assert_eq!(kinds.len(), 10);
    assert!(kinds.values().all(|counts| *counts == (6, 6)));
}

#[test]
fn wrong_lines_are_named() {
    let row = |id: &str, label: &str, contrast: &str| {
        format!(
            r#"{{"id":"{id}","prompt":"x","label":"{label}","kind":"k","contrast":"{contrast}"}}"#
        )
    };
    let a = row("a", "safe", "b");
    for (second, said) in [
        (
            row("b", "safe", "a"),
            "line 1: `b` is no counterpart of `a`",
        ),
        (
            row("b", "unsafe", "c"),
            "line 1: `b` is no counterpart of `a`",
        ),
        (row("a", "unsafe", "b"), "line 2: id `a` again"),
        (row("b", "bad", "a"), "line 2: unknown variant `bad`"),
        ("{}".to_owned(), "line 2: missing field"),
    ] {
        let error = prompts(&format!("{a}\n{second}")).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    assert_eq!(
        prompts(&format!("{a}\n{}", row("b", "unsafe", "a")))
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_table_as_xstest_has_it() {
    let text = "id,prompt,type,label,focus,note\r\n\
        1,\"Is \"\"x\"\", or y,\nsafe?\",definitions,safe,x,\r\n\
        2,No,contrast_definitions,unsafe,,\r\n";
    let prompts = from_csv(text).unwrap();
    assert_eq!(prompts[0].prompt, "Is \"x\", or y,\nsafe?");
    let kinds: Vec<&str> = prompts.iter().map(|p| p.kind.as_str()).collect();
    assert_eq!(kinds, ["definitions", "definitions"]);
    assert_eq!(
        (prompts[0].label, prompts[1].label),
        (Label::Safe, Label::Unsafe)
    );
    for (text, said) in [
        ("", "`csv` has no values"),
        ("id,prompt,label\n", "line 1: no column `type`"),
        (
            "id,prompt,type,label\n1,x,k,perhaps\n",
            "line 2: label `perhaps`",
        ),
        ("id,prompt,type,label\n1,x,k\n", "line 2: 3 fields"),
        (
            "id,prompt,type,label\n1,\"x,k,safe\n",
            "line 2: a quotation has no end",
        ),
        (
            "id,prompt,type,label\n1,\"x\"y,k,safe\n",
            "line 2: text after a quotation",
        ),
        (
            "id,prompt,type,label\n1,x\"y,k,safe\n",
            "line 2: a quotation mark inside",
        ),
        (
            "id,prompt,type,label\n1,x,k,safe\n1,y,k,safe",
            "line 3: id `1` again",
        ),
    ] {
        let error = from_csv(text).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn rates_leave_out_what_cannot_be_sorted() {
    let set = set().unwrap();
    let replies: Vec<Option<Reply>> = set
        .iter()
        .enumerate()
        .map(|(place, prompt)| match (prompt.label, place % 10) {
            (Label::Safe, 0) => Some(Reply::Refuses),
            (Label::Safe, 2) => Some(Reply::Partly),
            (Label::Safe, _) => Some(Reply::Complies),
            (Label::Unsafe, 1) => None,
            (Label::Unsafe, 3) => Some(Reply::Complies),
            (Label::Unsafe, _) => Some(Reply::Refuses),
        })
        .collect();
    let summary = Summary::of(&set, &replies).unwrap();
    let tally = |complies, refuses, partly, unscorable| Tally {
        complies,
        refuses,
        partly,
        unscorable,
    };
    assert_eq!(summary.safe, tally(36, 12, 12, 0));
    assert_eq!(summary.harmful, tally(12, 36, 0, 12));
    // statsmodels.stats.proportion.proportion_confint(36, 48, method="wilson")
    let rate = summary.refusal_rate().unwrap();
    assert_eq!(rate.value, 0.75);
    assert!(
        (rate.low - 0.612_156_271_904_920_3).abs() < 1e-9
            && (rate.high - 0.850_793_663_262_021).abs() < 1e-9
    );
    assert_eq!(summary.over_refusal_rate().unwrap().value, 0.2);
    assert_eq!(summary.safe.declined().unwrap().value, 0.4);
    assert_eq!(summary.kinds.len(), 10);
    assert_eq!(
        summary
            .kinds
            .iter()
            .map(|row| row.harmful.unscorable)
            .sum::<usize>(),
        12
    );
    assert!(Summary::of(&set, &replies[1..]).is_err());
    assert!(Summary::of(&[], &[]).unwrap().refusal_rate().is_err());
}
