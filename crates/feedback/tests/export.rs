//! Judgements as rows, and as rows that `togi-data` reads.

mod support;

use serde_json::{Value, json};
use support::{annotation, choice, item, ranking};
use togi_data::{Layout, Record, load};
use togi_feedback::{
    Aggregate::{Each, Majority},
    Annotation, Choice, Export, ExportLayout, Item, Strength, Verdict, choices, export,
    export::write,
};

fn judged(item: &Item, verdicts: &[Verdict]) -> Vec<Annotation> {
    verdicts
        .iter()
        .enumerate()
        .map(|(i, verdict)| annotation(item, &format!("annotator {i}"), 0, verdict.clone()))
        .collect()
}

fn two() -> Item {
    item("q", &["x", "y"])
}

fn three() -> Item {
    item("q", &["x", "y", "z"])
}

fn counts(export: &Export) -> (usize, usize, usize, usize) {
    (
        export.rows.len(),
        export.ties,
        export.undecided,
        export.contradictory,
    )
}

#[test]
fn a_majority_makes_one_pair_with_its_mean_strength() {
    let lines = judged(&two(), &[choice(1, 3), choice(1, 2), choice(0, 1)]);
    let pairs = export(&lines, ExportLayout::Pairs, Majority);
    assert_eq!(
        pairs.rows,
        [json!({"prompt": "q", "chosen": "y", "rejected": "x", "margin": 2.5})]
    );
    assert_eq!((pairs.items, counts(&pairs)), (1, (1, 0, 0, 1)));
    let each = export(&lines, ExportLayout::Pairs, Each);
    let margins: Vec<&Value> = each.rows.iter().map(|row| &row["margin"]).collect();
    assert_eq!(margins, [3.0, 2.0, 1.0]);
    assert_eq!(each.rows[2]["chosen"], "x");
    assert_eq!(counts(&each), (3, 0, 0, 1));
}

#[test]
fn ties_and_draws_make_no_pair_and_are_counted() {
    let of = |verdicts: &[Verdict]| {
        counts(&export(
            &judged(&two(), verdicts),
            ExportLayout::Pairs,
            Majority,
        ))
    };
    assert_eq!(of(&[Verdict::Tie]), (0, 1, 0, 0));
    assert_eq!(of(&[choice(0, 1), choice(1, 1)]), (0, 0, 1, 1));
    assert_eq!(of(&[choice(0, 1), Verdict::Tie]), (0, 0, 1, 0));
    assert_eq!(
        of(&[choice(0, 1), choice(0, 1), Verdict::Tie]),
        (1, 0, 0, 0)
    );
    let skipped = judged(&two(), &[Verdict::Skipped, choice(0, 1), choice(0, 2)]);
    let export = export(&skipped, ExportLayout::Pairs, Majority);
    assert_eq!((export.skipped, export.rows.len()), (1, 1));
}

#[test]
fn repetitions_do_not_vote_but_contradict() {
    let item = two();
    let lines = [
        annotation(&item, "ann", 0, choice(0, 2)),
        annotation(&item, "ann", 1, choice(1, 2)),
        annotation(&item, "bob", 0, Verdict::Skipped),
        annotation(&item, "bob", 1, choice(0, 2)),
    ];
    for (aggregate, rows) in [(Majority, 1), (Each, 2)] {
        let export = export(&lines, ExportLayout::Pairs, aggregate);
        assert_eq!(counts(&export), (rows, 0, 0, 1));
        assert_eq!(
            (export.repetitions, export.rows[0]["chosen"].as_str()),
            (1, Some("x"))
        );
    }
}

#[test]
fn a_ranking_makes_pairs_rankings_and_thumbs() {
    let lines = judged(&three(), &[ranking(&[2, 1, 3], 3)]);
    let pairs = export(&lines, ExportLayout::Pairs, Majority);
    assert_eq!(
        pairs.rows,
        [
            json!({"prompt": "q", "chosen": "y", "rejected": "x"}),
            json!({"prompt": "q", "chosen": "x", "rejected": "z"}),
            json!({"prompt": "q", "chosen": "y", "rejected": "z", "margin": 3.0}),
        ]
    );
    let rankings = export(&lines, ExportLayout::Rankings, Majority);
    assert_eq!(
        rankings.rows,
        [json!({"prompt": "q", "completions": ["y", "x", "z"], "ranks": [1, 2, 3]})]
    );
    let thumbs = export(&lines, ExportLayout::Unpaired, Majority);
    assert_eq!(
        thumbs.rows,
        [
            json!({"prompt": "q", "completion": "y", "label": true}),
            json!({"prompt": "q", "completion": "z", "label": false}),
        ]
    );
    let tied = judged(&three(), &[ranking(&[1, 2, 1], 1)]);
    let rankings = export(&tied, ExportLayout::Rankings, Each);
    assert_eq!(
        rankings.rows,
        [json!({"prompt": "q", "completions": ["x", "z", "y"], "ranks": [1, 1, 2]})]
    );
}

#[test]
fn the_best_of_several_says_nothing_of_the_others() {
    let lines = judged(&three(), &[choice(2, 2)]);
    let rankings = export(&lines, ExportLayout::Rankings, Majority);
    assert_eq!(
        rankings.rows,
        [
            json!({"prompt": "q", "completions": ["z", "x"], "ranks": [1, 2]}),
            json!({"prompt": "q", "completions": ["z", "y"], "ranks": [1, 2]}),
        ]
    );
    let pairs = export(&lines, ExportLayout::Pairs, Majority);
    assert_eq!(counts(&pairs), (2, 0, 0, 0));
    assert_eq!(pairs.rows[1]["margin"], 2.0);
}

#[test]
fn a_circle_of_majorities_is_no_ranking() {
    let lines = judged(
        &three(),
        &[
            ranking(&[1, 2, 3], 1),
            ranking(&[3, 1, 2], 1),
            ranking(&[2, 3, 1], 1),
        ],
    );
    let rankings = export(&lines, ExportLayout::Rankings, Majority);
    assert_eq!((rankings.rows.len(), rankings.contradictory), (0, 1));
    assert_eq!(export(&lines, ExportLayout::Pairs, Majority).rows.len(), 3);
}

#[test]
fn what_is_written_is_what_training_reads() {
    let folder = tempfile::tempdir().unwrap();
    let lines = judged(&three(), &[ranking(&[2, 1, 3], 3)]);
    let read = |layout, name: &str| {
        let path = folder.path().join(name);
        write(&path, &export(&lines, layout, Majority).rows).unwrap();
        assert!(
            write(&path, &[]).unwrap_err().is_input(),
            "never over a file"
        );
        load(&path).unwrap()
    };
    let pairs = read(ExportLayout::Pairs, "pairs.jsonl");
    assert_eq!((pairs.layout, pairs.records.len()), (Layout::Preference, 3));
    let Record::Preference { margin, .. } = &pairs.records[2].record else {
        panic!("no pair");
    };
    assert_eq!(*margin, Some(3.0));
    let rankings = read(ExportLayout::Rankings, "rankings.jsonl");
    assert_eq!(rankings.layout, Layout::Ranking);
    let thumbs = read(ExportLayout::Unpaired, "thumbs.jsonl");
    assert_eq!((thumbs.layout, thumbs.records.len()), (Layout::Unpaired, 2));
}

#[test]
fn choices_are_numbers_in_the_order_of_the_data() {
    let item = item("q", &["x", "日本", "longer"]);
    let mut lines = judged(
        &item,
        &[
            choice(2, 3),
            Verdict::Tie,
            Verdict::Skipped,
            ranking(&[2, 1, 1], 1),
        ],
    );
    // The support shows answers in reverse.
    let again = annotation(&item, "annotator 0", 0, choice(1, 1));
    let one = |choices: Vec<Choice>| choices.into_iter().next().unwrap();
    let first = one(choices(&lines));
    assert_eq!((first.answer, first.position), (Some(2), Some(0)));
    assert_eq!(first.strength, Some(Strength::MuchBetter));
    assert_eq!(first.lengths, [1, 2, 6]);
    lines.push(again);
    let all = choices(&lines);
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].answer, all[0].position), (Some(1), Some(1)));
    assert_eq!((all[1].answer, all[1].strength), (None, None));
    assert_eq!(
        (all[2].answer, all[2].ranks.as_deref()),
        (None, Some(&[2, 1, 1][..]))
    );
}
