use serde_json::json;

use super::{draw::short, *};

fn rows() -> Vec<Map<String, Value>> {
    let train = (1..=20).map(|step| {
        json!({"stage": "ppo", "step": step, "loss": 1.0, "objective/kl": 0.1 * f64::from(step),
            "value/grad_norm": 1.0, "policy/ratio": 1.0, "sampling/a": 0.5, "sampling/b": 0.5})
    });
    let val = [10, 20].map(|step| {
        json!({"stage": "ppo", "step": step, "val/kl": 1.0, "val/gold": 0.5, "val/loss": 2.0})
    });
    let once = json!({"stage": "sft", "step": 1, "loss": 1.0});
    let rows = train.chain(val).chain([once]);
    rows.filter_map(|row| row.as_object().cloned()).collect()
}

#[test]
fn curves_are_grouped_and_held_out_values_are_dots_on_their_twin() {
    let stages = stages(&rows());
    assert_eq!(stages.len(), 1, "one row makes no curve");
    let groups: Vec<(&str, Vec<&str>)> = stages[0]
        .groups()
        .into_iter()
        .map(|(group, curves)| (group, curves.iter().map(|c| c.name.as_str()).collect()))
        .collect();
    assert_eq!(
        groups,
        [
            ("", vec!["loss", "value/grad_norm"]),
            ("objective", vec!["objective/kl"]),
            ("policy", vec!["policy/ratio"]),
            ("val", vec!["val/gold"]),
            ("sampling", vec!["sampling/a", "sampling/b"]),
        ]
    );
    let kl = &stages[0].curves.iter().find(|c| c.name == "objective/kl");
    let figure = kl.unwrap().figure(&[]).unwrap();
    assert_eq!(figure.matches("<circle").count(), 2);
    assert!(figure.contains("held out") && figure.contains("training"));
}

#[test]
fn labels_tell_the_ends_of_an_axis_apart() {
    for (low, high, labels) in [
        (0.0, 5.0, ["0", "5"]),
        (-0.5, 0.5, ["-0.5", "0.5"]),
        (1.0, 1.000_002, ["1.0000000", "1.0000020"]),
        (0.0, 3e-7, ["0", "3.0e-7"]),
        (0.45, 0.55, ["0.45", "0.55"]),
        (0.0, 2e6, ["0", "2.0e6"]),
    ] {
        assert_eq!([short(low, high - low), short(high, high - low)], labels);
    }
}

#[test]
fn alarms_mark_the_curves_of_their_stage() {
    let stages = stages(&rows());
    let alarm = |stage: &str, step| Alarm {
        stage: stage.to_owned(),
        step,
        ..Alarm::default()
    };
    let html = stages[0]
        .html(&[alarm("ppo", 12), alarm("ppo", 12)])
        .unwrap();
    assert_eq!(html.matches("alarm, step 12</li>").count(), 7);
    assert!(html.contains("var(--alarm)"));
    for other in [alarm("sft", 12), alarm("", 99)] {
        assert!(!stages[0].html(&[other]).unwrap().contains("var(--alarm)"));
    }
    assert!(stages[0].html(&[alarm("", 3)]).unwrap().contains("step 3<"));
}
