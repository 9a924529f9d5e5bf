//! Every metric against other libraries' values (`tools/golden/eval_metrics.py`).

use serde_json::Value;
use togi_eval::{
    EvalError, Interval,
    agreement::{Level, Rating, Ratings},
    annotator::{Answer, Choice, Share, biases, worth_another_look},
    diversity::{Diversity, Output, Scores, adjusted_distinct_ngrams, distinct_ngrams, self_bleu},
    length_controlled::{Battles, length_controlled},
    paired::{FLIPS, mcnemar, sign_flip_test, sign_test},
    paired_difference,
};

/// The cases of a metric; it has at least six.
fn cases(metric: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(include_str!("golden/eval_metrics.json")).unwrap();
    let cases: Vec<Value> = all.into_iter().filter(|c| c["metric"] == metric).collect();
    assert!(cases.len() >= 6, "{metric}");
    cases
}

fn list<T>(of: &Value, each: impl Fn(&Value) -> T) -> Vec<T> {
    of.as_array().unwrap().iter().map(each).collect()
}

fn numbers(of: &Value) -> Vec<f64> {
    list(of, |v| v.as_f64().unwrap())
}

fn whole(of: &Value) -> usize {
    of.as_u64().unwrap() as usize
}

fn wholes(of: &Value) -> Vec<usize> {
    list(of, whole)
}

#[track_caller]
fn near(found: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    let off = (found - expected).abs();
    assert!(off <= tolerance, "{found} where {expected} is expected");
}

fn ratings(case: &Value) -> Ratings {
    let [items, annotators] = [0, 1].map(|i| wholes(&case["ratings"][i]));
    let rows = items.into_iter().zip(annotators);
    let rating = |((item, annotator), value)| Rating {
        item,
        annotator,
        value,
    };
    let all = rows.zip(numbers(&case["ratings"][2])).map(rating);
    Ratings::new(&all.collect::<Vec<_>>()).unwrap()
}

fn level(name: &str) -> Level {
    match name {
        "nominal" => Level::Nominal,
        "ordinal" => Level::Ordinal,
        _ => Level::Interval,
    }
}

#[test]
fn agreement_is_that_of_krippendorff_scikit_learn_and_statsmodels() {
    for case in cases("agreement") {
        let (of, expected) = (ratings(&case), &case["expected"]);
        near(of.raw_agreement().unwrap(), &expected["raw"], 1e-9);
        let pairwise = of.pairwise_kappa().unwrap();
        near(pairwise.value, &expected["pairwise"][0], 1e-9);
        assert_eq!(pairwise.pairs, whole(&expected["pairwise"][1]));
        assert_eq!(pairwise.undefined, whole(&expected["pairwise"][2]));
        let fleiss = of.fleiss_kappa().unwrap();
        near(fleiss.value, &expected["fleiss"][0], 1e-9);
        let counts = [fleiss.raters, fleiss.items, fleiss.left_out];
        assert_eq!(counts, [1, 2, 3].map(|i| whole(&expected["fleiss"][i])));
        for name in ["nominal", "ordinal", "interval"] {
            let alpha = of.krippendorff_alpha(level(name)).unwrap();
            near(alpha, &expected["alpha"][name], 1e-9);
        }
    }
    for case in cases("cohen") {
        let kappa = ratings(&case).cohen_kappa(0, 1).unwrap();
        near(kappa.value, &case["expected"], 1e-9);
    }
}

#[test]
fn intervals_are_those_of_the_same_draws_in_python() {
    for case in cases("alpha_interval") {
        let seed = case["seed"].as_u64().unwrap();
        let found = ratings(&case).alpha_interval(level(case["level"].as_str().unwrap()), seed);
        let (found, expected) = (found.unwrap(), &case["expected"]);
        near(found.interval.value, &expected[0], 1e-9);
        near(found.interval.low, &expected[1], 1e-9);
        near(found.interval.high, &expected[2], 1e-9);
        assert_eq!(found.undefined, whole(&expected[3]));
    }
    for case in cases("mean_interval") {
        let seed = case["seed"].as_u64().unwrap();
        let found = paired_difference("x", &numbers(&case["a"]), &numbers(&case["b"]), seed);
        let Interval { value, low, high } = found.unwrap();
        near(value, &case["expected"][0], 1e-9);
        near(low, &case["expected"][1], 1e-9);
        near(high, &case["expected"][2], 1e-9);
    }
}

#[test]
fn self_consistency_is_that_counted_in_python() {
    for case in cases("self_consistency") {
        let (own, expected) = (
            ratings(&case).self_consistency().unwrap(),
            &case["expected"],
        );
        near(own.share, &expected["share"], 1e-9);
        assert_eq!(own.repeated, whole(&expected["repeated"]));
        assert_eq!(
            own.by_annotator.len(),
            expected["by"].as_object().unwrap().len()
        );
        for (who, (share, repeated)) in own.by_annotator {
            let expected = &expected["by"][who.to_string()];
            near(share, &expected[0], 1e-9);
            assert_eq!(repeated, whole(&expected[1]));
        }
    }
}

#[track_caller]
fn near_share(found: Option<Share>, expected: &Value) {
    let Some(Share { interval, count }) = found else {
        return assert!(expected.is_null(), "no share where {expected} is expected");
    };
    near(interval.value, &expected[0], 1e-9);
    near(interval.low, &expected[1], 1e-9);
    near(interval.high, &expected[2], 1e-9);
    assert_eq!(count, whole(&expected[3]));
}

#[test]
fn annotators_lean_as_counted_in_python() {
    for case in cases("annotators") {
        let answer = |of: usize| [Some(Answer::A), Some(Answer::B), None][of];
        let choice = |row: &Value| {
            let row = wholes(row);
            Choice {
                item: row[0],
                annotator: row[1],
                chosen: answer(row[2]),
                shown_first: answer(row[3]).unwrap(),
                longer: answer(row[4]),
            }
        };
        let choices = list(&case["choices"], choice);
        let found = biases(&choices).unwrap();
        let expected = case["expected"]["biases"].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(
                (found.annotator, found.count),
                (whole(&expected[0]), whole(&expected[1]))
            );
            near_share(found.chose_first, &expected[2]);
            near_share(found.chose_longer, &expected[3]);
            near_share(found.agrees, &expected[4]);
        }
        let look = worth_another_look(&choices);
        let expected = case["expected"]["disputed"].as_array().unwrap();
        assert_eq!(look.len(), expected.len());
        for (found, expected) in look.iter().zip(expected) {
            assert_eq!(
                (found.item, found.votes.to_vec()),
                (whole(&expected[0]), wholes(&expected[1]))
            );
            near(found.entropy, &expected[2], 1e-9);
        }
    }
}

fn near_scores(found: Option<Scores>, expected: &Value) {
    let found = found.unwrap();
    near(found.distinct, &expected["distinct"], 1e-9);
    near(found.adjusted_distinct, &expected["ead"], 1e-9);
    near(found.self_bleu, &expected["self_bleu"], 1e-9);
    let distance = found.embedding_distance.unwrap();
    near(distance, &expected["embedding"], 1e-9);
    // Equal with zlib-rs, which the workspace has; another deflate finds other matches: within 3%.
    let ratio = expected["compression"].as_f64().unwrap();
    near(
        found.compression_ratio,
        &expected["compression"],
        0.03 * ratio,
    );
}

#[test]
fn diversity_is_that_of_nltk_and_scipy() {
    for case in cases("diversity") {
        let tokens = list(&case["tokens"], |prompt| list(prompt, wholes));
        let vectors = list(&case["vectors"], |prompt| list(prompt, numbers));
        let text = |answer: &Vec<usize>| {
            let words: Vec<String> = answer.iter().map(|t| format!("w{t}")).collect();
            words.join(" ")
        };
        let of_prompt = |answers: &Vec<Vec<usize>>| answers.iter().map(text).collect();
        let texts: Vec<Vec<String>> = tokens.iter().map(of_prompt).collect();
        let output = |prompt: usize, answer: usize| Output {
            tokens: tokens[prompt][answer].as_slice(),
            text: texts[prompt][answer].as_str(),
            embedding: Some(vectors[prompt][answer].as_slice()),
        };
        let of_prompt = |prompt: usize| {
            let answers = 0..tokens[prompt].len();
            answers.map(|answer| output(prompt, answer)).collect()
        };
        let prompts: Vec<Vec<_>> = (0..tokens.len()).map(of_prompt).collect();
        let found = Diversity::of(&prompts, whole(&case["vocabulary"])).unwrap();
        near_scores(found.per_input, &case["expected"]["per_input"]);
        near_scores(found.across_inputs, &case["expected"]["across"]);
        assert_eq!(found.prompts, whole(&case["expected"]["prompts"]));
    }
    for case in cases("ngrams") {
        let answers = list(&case["tokens"], wholes);
        let answers: Vec<&[usize]> = answers.iter().map(Vec::as_slice).collect();
        let (n, vocabulary, expected) = (
            whole(&case["n"]),
            whole(&case["vocabulary"]),
            &case["expected"],
        );
        near(distinct_ngrams(&answers, n), &expected[0], 1e-9);
        let adjusted = adjusted_distinct_ngrams(&answers, n, vocabulary);
        near(adjusted, &expected[1], 1e-9);
        near(self_bleu(&answers, n).unwrap(), &expected[2], 1e-9);
    }
}

#[test]
fn paired_tests_are_those_of_scipy_and_statsmodels() {
    for case in cases("sign") {
        let test = sign_test("x", &numbers(&case["a"]), &numbers(&case["b"])).unwrap();
        let counts = [test.first, test.second, test.ties];
        assert_eq!(counts, [0, 1, 2].map(|i| whole(&case["expected"][i])));
        near(test.p_value, &case["expected"][3], 1e-9);
    }
    for case in cases("mcnemar") {
        let right = |name: &str| list(&case[name], |v| v.as_bool().unwrap());
        let test = mcnemar("x", &right("a"), &right("b")).unwrap();
        near(test.p_value, &case["expected"], 1e-9);
    }
    for case in cases("sign_flip") {
        let seed = case["seed"].as_u64().unwrap();
        let p = sign_flip_test("x", &numbers(&case["a"]), &numbers(&case["b"]), seed).unwrap();
        near(p, &case["expected"][0], 1e-9);
        // All flips there are, rather than some: within four standard errors.
        if let Some(exact) = case["expected"][1].as_f64() {
            let error = (exact * (1.0 - exact) / FLIPS as f64).sqrt();
            near(p, &case["expected"][1], 4.0 * error + 1e-3);
        }
    }
}

#[test]
fn length_controlled_win_rates_are_those_of_scikit_learn_and_statsmodels() -> Result<(), EvalError>
{
    for case in cases("length_controlled") {
        let (wins, longer_by) = (numbers(&case["wins"]), numbers(&case["longer_by"]));
        let given = &case["difficulty"];
        let difficulty = (!given.is_null()).then(|| numbers(given));
        let battles = Battles {
            wins: &wins,
            longer_by: &longer_by,
            difficulty: difficulty.as_deref(),
        };
        let found = length_controlled(&battles, case["ridge"].as_f64().unwrap())?;
        let expected = &case["expected"];
        near(found.win_rate, &expected["win_rate"], 1e-6);
        near(found.raw_win_rate, &expected["raw"], 1e-9);
        let coefficients = [found.system, found.length, found.difficulty];
        for (i, expected) in expected["coefficients"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            near(coefficients[i], expected, 1e-6);
        }
    }
    Ok(())
}
