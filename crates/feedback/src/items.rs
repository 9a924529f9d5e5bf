//! Rows of data as items to judge: a prompt and two or more answers.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use togi_data::{BadRows, Content, LoadOptions, Located, Record, Skipped, load_with};

use crate::{
    annotation::{MOST_ANSWERS, item_id},
    error::FeedbackError,
};

/// A prompt and its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// A hash of the content: the same in every file, and another one for other answers.
    pub id: String,
    /// File and line; several, with commas between them, where the answers are a row each.
    pub place: String,
    /// The file and line of each row that it is made of.
    pub places: Vec<String>,
    /// The prompt.
    pub prompt: Content,
    /// The answers in the data's order.
    pub answers: Vec<Content>,
}

/// The items of some files.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// The items in the order of the rows.
    pub items: Vec<Item>,
    /// Rows that were left out, with [`BadRows::Skip`] only.
    pub skipped: Vec<Skipped>,
    /// Rows that say what an earlier row said; they are one item.
    pub repeated: usize,
}

/// Answers to one prompt that are a row each.
struct Group {
    prompt: Content,
    places: Vec<String>,
    answers: Vec<Content>,
}

/// Reads the items of files. Rows of `prompt` and `completion` with equal prompts are one item.
///
/// # Errors
/// When a file cannot be read, has a layout without answers to compare, or (unless bad rows are
/// skipped) when a row has fewer than two answers, equal answers, more than nine, or repeats
/// another row with its answers in another order: the two would contradict each other.
pub fn load(paths: &[PathBuf], bad_rows: BadRows) -> Result<Items, FeedbackError> {
    let options = LoadOptions {
        bad_rows,
        ..LoadOptions::default()
    };
    let mut reader = Reader {
        bad_rows,
        ..Reader::default()
    };
    for path in paths {
        let dataset = load_with(path, &options)?;
        reader.items.skipped.extend(dataset.skipped);
        for row in dataset.records {
            reader.row(row)?;
        }
    }
    for group in std::mem::take(&mut reader.groups) {
        reader.item(group.places, group.prompt, group.answers)?;
    }
    if reader.items.items.is_empty() {
        let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let reason = match reader.items.skipped.first() {
            Some(first) => format!("no row can be judged; the first: {}", first.reason),
            None => "has no rows".to_owned(),
        };
        return Err(FeedbackError::row(names.join(", "), reason));
    }
    Ok(reader.items)
}

#[derive(Default)]
struct Reader {
    bad_rows: BadRows,
    items: Items,
    groups: Vec<Group>,
    /// Prompts of groups, as JSON.
    by_prompt: HashMap<String, usize>,
    ids: HashSet<String>,
    /// Where a prompt with these answers in any order was first.
    contents: HashMap<String, String>,
}

impl Reader {
    fn row(&mut self, row: Located) -> Result<(), FeedbackError> {
        let place = row.place;
        match row.record {
            Record::Preference {
                prompt,
                chosen,
                rejected,
                ..
            } => self.item(vec![place], prompt, vec![chosen, rejected]),
            Record::Ranking {
                prompt, answers, ..
            } => self.item(vec![place], prompt, answers),
            Record::PromptCompletion { prompt, completion }
            | Record::Rated {
                prompt, completion, ..
            }
            | Record::Unpaired {
                prompt, completion, ..
            } => self.answer(place, prompt, completion),
            Record::Messages(_) | Record::Prompt(_) | Record::Steps { .. } => {
                let reason = "has no answers to compare; there are: prompt + chosen + rejected | \
                              prompt + completions | rows of prompt + completion with equal prompt";
                Err(FeedbackError::row(place, reason))
            }
        }
    }

    /// A row with one answer.
    fn answer(
        &mut self,
        place: String,
        prompt: Content,
        answer: Content,
    ) -> Result<(), FeedbackError> {
        let index = *self
            .by_prompt
            .entry(json(&prompt))
            .or_insert(self.groups.len());
        if index == self.groups.len() {
            self.groups.push(Group {
                prompt,
                places: vec![place],
                answers: vec![answer],
            });
            return Ok(());
        }
        let group = &mut self.groups[index];
        if let Some(same) = group.answers.iter().position(|known| *known == answer) {
            let reason = format!("is the same answer as {}", group.places[same]);
            return self.bad(place, reason);
        }
        group.places.push(place);
        group.answers.push(answer);
        Ok(())
    }

    fn item(
        &mut self,
        places: Vec<String>,
        prompt: Content,
        answers: Vec<Content>,
    ) -> Result<(), FeedbackError> {
        let place = places.join(", ");
        let k = answers.len();
        if k < 2 {
            return self.bad(place, "has one answer to its prompt, and two are needed");
        }
        if k > MOST_ANSWERS {
            let reason = format!("has {k} answers, and {MOST_ANSWERS} can be shown");
            return self.bad(place, reason);
        }
        let of_text = |answer: &&Content| matches!(answer, Content::Text(_));
        let texts = answers.iter().filter(of_text).count();
        if texts != 0 && texts != k {
            return self.bad(place, "has answers as text beside answers as messages");
        }
        // What people see counts: a message of its own may say the same.
        let mut said: Vec<String> = answers.iter().map(|a| a.text().trim().to_owned()).collect();
        said.sort_unstable();
        if said.windows(2).any(|two| two[0] == two[1]) {
            return self.bad(place, "has answers that are the same");
        }
        let id = item_id(&prompt, &answers);
        if self.ids.contains(&id) {
            self.items.repeated += 1;
            return Ok(());
        }
        let mut sorted: Vec<String> = answers.iter().map(json).collect();
        sorted.sort_unstable();
        let content = format!("{}\n{}", json(&prompt), sorted.join("\n"));
        if let Some(first) = self.contents.get(&content) {
            let reason = format!("contradicts {first}: the same answers in another order");
            return self.bad(place, reason);
        }
        self.contents.insert(content, place.clone());
        self.ids.insert(id.clone());
        self.items.items.push(Item {
            id,
            place,
            places,
            prompt,
            answers,
        });
        Ok(())
    }

    fn bad(&mut self, place: String, reason: impl Into<String>) -> Result<(), FeedbackError> {
        match self.bad_rows {
            BadRows::Error => Err(FeedbackError::row(place, reason)),
            BadRows::Skip => {
                self.items.skipped.push(Skipped {
                    place,
                    reason: reason.into(),
                });
                Ok(())
            }
        }
    }
}

fn json(content: &Content) -> String {
    serde_json::to_string(content).unwrap_or_default()
}
