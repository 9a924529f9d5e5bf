//! Two systems against each other by a judge.

use anyhow::Result;
use togi_eval::{
    Comparison, EvalError, Interval,
    bootstrap::mean_interval,
    length_controlled::{Battles, length_controlled},
    paired::sign_test,
};
use togi_reward::{
    Scorable,
    judge::{Judge, Pair, PositionBias, Verdict},
};

/// What a judge says of a system's answers against another's.
pub(crate) struct Versus {
    system: String,
    other: String,
    judge: String,
    /// The mean probability that the system's answer is the better one.
    pub(crate) win_rate: Interval,
    /// The same at answers of equal length, where that can be fitted.
    pub(crate) length_controlled: Result<f64, EvalError>,
    /// Of the sign test over the prompts.
    pub(crate) p_value: f64,
    pub(crate) position_bias: Option<PositionBias>,
    /// Prompts with equal answers, which count a half.
    pub(crate) equal: usize,
    /// Prompts that the judge could not decide, and the first reason; they count for nothing.
    pub(crate) unscorable: (usize, Option<String>),
    pub(crate) compared: usize,
}

/// Of the length-controlled win rate: what scikit-learn calls 1 / C.
const RIDGE: f64 = 1.0;

impl Versus {
    /// Asks the judge about the answers of two systems of a comparison.
    ///
    /// # Errors
    /// When a system is not there; when the judge could decide nothing.
    pub(crate) fn of(
        judge: &dyn Judge,
        comparison: &Comparison,
        system: &str,
        other: &str,
        seed: u64,
    ) -> Result<Self> {
        let answers = |name: &str| {
            let found = comparison.systems.iter().find(|s| s.name == name);
            let missing = || EvalError::Empty(format!("answers of {name}"));
            found.map(|system| &system.answers).ok_or_else(missing)
        };
        let (ours, theirs) = (answers(system)?, answers(other)?);
        let item = |prompt, completion| Scorable {
            prompt,
            prompt_ids: &[],
            completion,
            completion_ids: &[],
        };
        let all = comparison.prompts.iter().zip(ours).zip(theirs);
        let (mut pairs, mut wins, mut longer_by) = (Vec::new(), Vec::new(), Vec::new());
        let length = |text: &str| text.chars().count() as f64;
        let mut equal = 0;
        for ((prompt, ours), theirs) in all {
            if ours == theirs {
                equal += 1;
                wins.push(0.5);
                longer_by.push(0.0);
            } else {
                pairs.push(Pair {
                    first: item(prompt, ours),
                    second: item(prompt, theirs),
                });
            }
        }
        let mut verdicts: Vec<Verdict> = Vec::new();
        let mut unscorable = (0, None);
        for (verdict, pair) in judge.compare(&pairs).into_iter().zip(&pairs) {
            match verdict {
                Ok(verdict) => {
                    wins.push(verdict.first);
                    let (ours, theirs) = (pair.first.completion, pair.second.completion);
                    longer_by.push(length(ours) - length(theirs));
                    verdicts.push(verdict);
                }
                Err(reason) => {
                    unscorable.0 += 1;
                    unscorable.1.get_or_insert_with(|| reason.to_string());
                }
            }
        }
        if let (true, Some(reason)) = (wins.is_empty(), &unscorable.1) {
            anyhow::bail!("{} could decide no pair: {reason}", judge.name());
        }
        let halves = vec![0.5; wins.len()];
        let battles = Battles {
            wins: &wins,
            longer_by: &longer_by,
            difficulty: None,
        };
        Ok(Self {
            system: system.to_owned(),
            other: other.to_owned(),
            judge: judge.name(),
            win_rate: mean_interval("win rate", &wins, seed)?,
            length_controlled: length_controlled(&battles, RIDGE).map(|fit| fit.win_rate),
            p_value: sign_test("wins", &wins, &halves)?.p_value,
            position_bias: PositionBias::of(&verdicts),
            equal,
            unscorable,
            compared: wins.len(),
        })
    }

    /// In words.
    pub(crate) fn summary(&self) -> String {
        let Interval { value, low, high } = self.win_rate;
        let mut text = format!(
            "{} wins {:.1}% against {} by {} (95% interval {:.1} to {:.1}, {} prompts, {} of them with equal \
             answers; sign test p = {:.3})",
            self.system,
            value * 100.0,
            self.other,
            self.judge,
            low * 100.0,
            high * 100.0,
            self.compared,
            self.equal,
            self.p_value
        );
        match &self.length_controlled {
            Ok(rate) => text.push_str(&format!("; at equal length {:.1}%", rate * 100.0)),
            Err(reason) => text.push_str(&format!("; not length-controlled: {reason}")),
        }
        if let Some(bias) = self.position_bias {
            let (first, changed) = (bias.first_shown, bias.changed * 100.0);
            text.push_str(&format!(
                "; the answer shown first got {first:.3}, {changed:.1}% of choices changed with the order"
            ));
        }
        if let (count @ 1.., Some(reason)) = (self.unscorable.0, &self.unscorable.1) {
            text.push_str(&format!("; {count} unscorable (the first: {reason})"));
        }
        text
    }
}
