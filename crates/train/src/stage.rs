//! Where a stage of a run works, and what every stage does around its steps.

use std::time::Instant;

use togi_eval::report::Alarm;

use crate::{
    checkpoint::Stored,
    error::TrainError,
    memory::{Watch, refused, unless_refused},
    metrics::{Event, Observer, Row},
    run_folder::RunFolder,
};

/// Where a stage runs: its name, folder, seed and who is told.
pub struct Stage<'a> {
    /// Name in metrics and checkpoints.
    pub name: &'a str,
    /// The run folder.
    pub run: &'a RunFolder,
    /// Seed of the run.
    pub seed: u64,
    /// Who is told.
    pub observer: &'a mut dyn Observer,
    /// What the run may use of memory.
    pub watch: Watch,
}

impl Stage<'_> {
    /// The newest whole checkpoint, if there is one; tells about broken ones.
    pub(crate) fn newest(&mut self) -> Result<Option<Stored>, TrainError> {
        let (found, skipped) = Stored::newest(self.run, self.name)?;
        for reason in skipped {
            let text = format!("passed over a broken checkpoint: {reason}");
            self.observer.on(Event::Message(&text));
        }
        Ok(found)
    }

    /// Writes down and tells that a step is done.
    pub(crate) fn stepped(
        &mut self,
        step: u64,
        row: &Row,
        tokens: usize,
        started: Instant,
    ) -> Result<(), TrainError> {
        if let Some(reason) = refused() {
            return Err(self.refused(self.name, &reason));
        }
        self.watch.reached(step);
        let seconds = started.elapsed().as_secs_f64();
        let tokens_per_second = tokens as f64 / seconds;
        self.run
            .append("metrics.jsonl", &row.to_json(self.name, step))?;
        // Times differ from run to run: they have a file of their own.
        let mut timing = Row::default();
        timing.set("seconds", seconds);
        timing.set("tokens_per_second", tokens_per_second);
        self.run
            .append("timings.jsonl", &timing.to_json(self.name, step))?;
        self.observer.on(Event::Step {
            step,
            row,
            tokens_per_second,
        });
        Ok(())
    }

    /// Sets what the run may use of memory; tells if that is less than it will need.
    pub fn watches(&mut self, watch: Watch) {
        if let Some(text) = watch.warning(self.name) {
            self.observer.on(Event::Message(&text));
        }
        self.watch = watch;
    }

    /// What ends the run after this step of the stage, or of a part that has this name, if memory is short:
    /// once what it came to is kept.
    pub(crate) fn short_of_memory(&self, name: &str, step: u64) -> Option<TrainError> {
        let reason = self.watch.short()?;
        Some(TrainError::Memory {
            stage: name.to_owned(),
            step,
            reason,
        })
    }

    /// Takes the steps of the stage, or of a part that has this name: where a GPU has no memory left in one, the
    /// error says what would help.
    ///
    /// # Errors
    /// The steps' own, and [`TrainError::Refused`].
    pub fn within_memory<T>(
        &mut self,
        name: &str,
        steps: impl FnOnce(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        match (unless_refused(|| steps(self)), refused()) {
            (Ok(done), None) => done,
            (Ok(Err(error @ TrainError::Refused { .. })), _) => Err(error),
            // Whatever came out is not to be relied on.
            (Ok(_), Some(reason)) | (Err(reason), _) => Err(self.refused(name, &reason)),
        }
    }

    fn refused(&self, name: &str, reason: &str) -> TrainError {
        let (step, reason) = self.watch.refused(reason);
        TrainError::Refused {
            stage: name.to_owned(),
            step,
            reason,
        }
    }

    /// Writes down and tells alarms.
    pub(crate) fn alarmed(&mut self, alarms: &[Alarm]) -> Result<(), TrainError> {
        for alarm in alarms {
            let row = serde_json::to_value(alarm).map_err(|e| TrainError::Run {
                stage: self.name.to_owned(),
                step: alarm.step,
                reason: format!("alarm `{}`: {e}", alarm.monitor),
            })?;
            if let serde_json::Value::Object(row) = row {
                self.run.append("alarms.jsonl", &row)?;
            }
            self.observer.on(Event::Alarm(alarm));
        }
        Ok(())
    }

    /// Writes down and tells metrics on held-out data.
    pub(crate) fn looked(&mut self, step: u64, row: &Row) -> Result<(), TrainError> {
        row.check(self.name, step)?;
        self.run
            .append("metrics.jsonl", &row.to_json(self.name, step))?;
        self.observer.on(Event::Eval { step, row });
        Ok(())
    }
}
