use super::*;

fn number(text: &str) -> Number {
    let (above, below) = text.split_once('/').unwrap_or((text, "1"));
    let (whole, part) = above.split_once('.').unwrap_or((above, ""));
    let ten = 10_i128.pow(part.len() as u32);
    let digits: i128 = format!("{whole}{part}").parse().unwrap();
    Number::new(digits, ten * below.parse::<i128>().unwrap()).unwrap()
}

#[test]
fn numbers_are_found_as_by_hand() {
    let table = include_str!("../../tests/labelled/numbers.jsonl");
    let mut wrong = Vec::new();
    for line in table.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = row["text"].as_str().unwrap();
        let expected = row["number"].as_str().map(number);
        let found = answer_of(text);
        if found != expected {
            wrong.push(format!("{text:?}: {found:?}, not {expected:?}"));
        }
    }
    assert!(table.lines().count() >= 100);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn numbers_are_exact() {
    assert_eq!(Number::new(2, -4), Number::new(-1, 2));
    assert_eq!(Number::new(0, 5), Some(Number::from(0)));
    assert_eq!(Number::new(1, 0), None);
    assert_eq!(Number::new(-3, 6).unwrap().to_string(), "-1/2");
    assert_eq!(Number::from(-7).to_string(), "-7");
    assert_eq!(Number::new(1, 4).unwrap().value(), 0.25);
    assert_eq!(Number::new(i128::MIN, 1), None);
}

#[test]
fn rows_of_both_names_are_read() {
    let text = "{\"question\":\"a\",\"answer\":\"1+1\\n#### 2\"}\n\n{\"prompt\":\"b\",\"answer\":2.5,\"id\":1}";
    let read = problems(text).unwrap();
    assert_eq!(read[0].answer, Number::from(2));
    assert_eq!(read[1].answer, Number::new(5, 2).unwrap());
    for (line, said) in [
        (
            "{\"question\":\"a\",\"answer\":\"none\"}",
            "line 2: `answer` has no number",
        ),
        (
            "{\"question\":\"a\",\"answer\":null}",
            "line 2: `answer` has no number",
        ),
        ("{\"answer\":\"1\"}", "line 2: missing field `question`"),
    ] {
        let error = problems(&format!("\n{line}")).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn a_response_without_a_number_solves_nothing_and_is_counted() {
    let problem = Problem {
        question: "a".to_owned(),
        answer: Number::from(1200),
    };
    let grades: Vec<Grade> = ["#### 1,200.00", "1200", "12", "no idea"]
        .iter()
        .map(|response| problem.grade(response))
        .collect();
    let summary = Summary::of(&grades);
    assert_eq!(
        (summary.correct, summary.wrong, summary.unscorable),
        (2, 1, 1)
    );
    assert_eq!(summary.accuracy().unwrap().value, 0.5);
    assert!(Summary::default().accuracy().is_err());
}

#[test]
fn our_problems_have_the_answers_that_they_work_out_to() {
    // The problems' own sums, in their order.
    #[rustfmt::skip]
    let sums: [i64; 60] = [
        7 * 12, 45 - 18, 96 / 4, 23 - 9 + 14, 4 * 3 + 2 * 5, 2 * 7 * 15, 6 * (20 - 5), 80 * 7 / 2,
        100 - 2 * 18, 30 / 3, 500 - 15 * 12, 2 * 9 + 4, 16 - 16 / 4, 63 / 9 * 5, 80 - 80 * 25 / 100,
        (50 + 8) / 2, (21 * 60 + 25) - (19 * 60 + 40), 6 * 4 / 3, 9 * 6, 2 * (9 + 6), 180 / 12,
        240 - 240 * 3 / 4, 4 - 11,  - 12 - 8, 14 * 35 * 4, 12000 + 12000 * 5 / 100, 45 * 2 / 5,
        3 * 8 - 19, (31 + 7) / 2, 5 + 7, 350 * 6 / 100, 8 * 15 / 3, 60 - 3 * 17, 25 * 40 - 630,
        36 / 3 + 5, 2 * 7 * 3, 18 * 24 - 37, 5000 / 250, 3 * 16 - 12 - 15, 1500 * 80 / 400,
        2 * 11 + 5 * 6, 64 / 4 * 3, 90 / 6, 46 + 46 / 2 + 46 / 2 + 10, 320 - 320 * 3 / 8,
        144 / 12 * 5, 2000 * 3 / 100 * 2, 18 + 18 + 7, 60 / 3 + 1, 150 * 9 - 820, 6 * (5 - 2),
        (20 - 3) * 2, 300 * 10 / 4, 4 * 4 * 4, 28 - 9 - 2 * 9, 420 / 12, 12 * 2 * 5 / 10,
        75 - 75 / 5 + 13, 2 * 60 * 60, 7 * 6 * 4,
    ];
    let set = set().unwrap();
    assert_eq!(set.len(), sums.len());
    for (place, (problem, sum)) in set.iter().zip(sums).enumerate() {
        assert_eq!(problem.answer, Number::from(sum), "{}", problem.question);
        let same = set.iter().position(|p| p.question == problem.question);
        assert_eq!(same, Some(place), "{}", problem.question);
    }
}

#[test]
fn the_working_of_our_problems_leads_to_their_answers() {
    for line in include_str!("../../sets/arithmetic.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (working, answer) = row["answer"]
            .as_str()
            .unwrap()
            .split_once("\n####")
            .unwrap();
        let answer = answer.trim();
        assert!(working.contains(answer), "{working}: {answer}");
    }
}

#[test]
fn texts_that_break_off_are_read_too() {
    for line in include_str!("../../tests/labelled/numbers.jsonl").lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = row["text"].as_str().unwrap();
        for (place, _) in text.char_indices() {
            let (before, after) = text.split_at(place);
            answer_of(before);
            answer_of(after);
        }
    }
}
