//! Chat templates against `transformers` (tools/golden/templates.py).

use serde_json::Value;
use togi_data::{
    Message,
    template::{ChatTemplate, TemplateTokens},
};

#[test]
fn templates_are_rendered_as_transformers_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/templates.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 96);
    let mut wrong = Vec::new();
    for case in &cases {
        let text = |key: &str| case[key].as_str();
        let special = TemplateTokens {
            bos: Some("<s>".to_owned()),
            eos: Some("</s>".to_owned()),
            ..TemplateTokens::default()
        };
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let template = ChatTemplate::new(text("template").unwrap(), special);
        let ours = template.and_then(|t| t.render(&messages, case["prompt"] == true));
        let name = text("name").unwrap();
        match (ours, text("text"), text("error")) {
            (Ok(ours), Some(theirs), _) if ours == theirs => {}
            (Err(ours), _, Some(theirs)) if ours.to_string().contains(theirs) => {}
            (ours, theirs, error) => {
                wrong.push(format!(
                    "{name}: {ours:?}\n  transformers: {theirs:?} {error:?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
