//! Two systems against each other by a judge.

use anyhow::Result;
use togi_eval::{
    EvalError, Interval,
    bootstrap::mean_interval,
    length_controlled::{Battles, length_controlled},
    paired::sign_test,
};
use togi_reward::{
    Unscorable,
    judge::{Judge, Pair, PositionBias, Verdict},
};
use togi_train::rollout::Rollout;

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
    /// The probability of each prompt; none where the judge could not decide.
    pub(crate) wins: Vec<Option<f64>>,
}

/// Of the length-controlled win rate: what scikit-learn calls 1 / C.
const RIDGE: f64 = 1.0;

impl Versus {
    /// Asks the judge about two systems' answers to the same prompts.
    ///
    /// # Errors
    /// When the judge could decide nothing.
    pub(crate) fn of(
        judge: &dyn Judge,
        (system, ours): (&str, &[Rollout]),
        (other, theirs): (&str, &[Rollout]),
        seed: u64,
    ) -> Result<Self> {
        let differ = |(ours, theirs): &(&Rollout, &Rollout)| ours.text != theirs.text;
        let both = || ours.iter().zip(theirs);
        let pairs: Vec<Pair<'_>> = both()
            .filter(differ)
            .map(|(ours, theirs)| Pair {
                first: ours.scorable(),
                second: theirs.scorable(),
            })
            .collect();
        let mut answered = judge.compare(&pairs).into_iter();
        let mut verdicts: Vec<Verdict> = Vec::new();
        let mut unscorable = (0, None);
        // One value a prompt; answers that are equal are even.
        let each: Vec<Option<f64>> = both()
            .map(|pair| {
                if !differ(&pair) {
                    return Some(0.5);
                }
                let missing = || Err(Unscorable("the judge gave too few answers".to_owned()));
                match answered.next().unwrap_or_else(missing) {
                    Ok(verdict) => {
                        let first = verdict.first;
                        verdicts.push(verdict);
                        Some(first)
                    }
                    Err(reason) => {
                        unscorable.0 += 1;
                        unscorable.1.get_or_insert_with(|| reason.to_string());
                        None
                    }
                }
            })
            .collect();
        let length = |rollout: &Rollout| rollout.text.chars().count() as f64;
        let (wins, longer_by): (Vec<f64>, Vec<f64>) = each
            .iter()
            .zip(both())
            .filter_map(|(win, (ours, theirs))| Some(((*win)?, length(ours) - length(theirs))))
            .unzip();
        let equal = both().count() - pairs.len();
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
            wins: each,
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
