//! Verdicts on responses against IFEval's own program (tools/golden/ifeval.py).

use serde::Deserialize;
use serde_json::{Map, Value};
use togi_eval::ifeval::{IDS, Instruction, Outcome};

/// The arguments of a kind, and responses: place of the arguments, response, strict verdict, loose verdict.
#[derive(Deserialize)]
struct Group {
    id: String,
    kwargs: Vec<Map<String, Value>>,
    cases: Vec<(usize, String, bool, bool)>,
}

#[test]
fn verdicts_are_those_of_the_papers_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ifeval.json");
    let groups: Vec<Group> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let ids: Vec<&str> = groups.iter().map(|group| group.id.as_str()).collect();
    assert_eq!(ids, IDS);
    let mut wrong = Vec::new();
    for Group { id, kwargs, cases } in &groups {
        for verdict in [true, false] {
            let count = cases.iter().filter(|case| case.2 == verdict).count();
            assert!(count > 0 && cases.len() >= 8, "{id}: {count} {verdict}");
        }
        for (place, response, strict, loose) in cases {
            let instruction = Instruction::parse(id, &kwargs[*place]).unwrap();
            assert_eq!(instruction.id(), id);
            let ours = Outcome::of(&[instruction], response);
            if (ours.strict[0], ours.loose[0]) != (*strict, *loose) {
                let kwargs = &kwargs[*place];
                wrong.push(format!("{id} {kwargs:?} {response:?}: {ours:?}"));
            }
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
}
