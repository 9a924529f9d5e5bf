//! Principles that answers are criticised, revised and compared by (Bai et al. 2022, "Constitutional AI").

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// One principle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principle {
    /// A word or two for tables.
    pub name: String,
    /// Asks the model what is wrong with its answer.
    pub critique: String,
    /// Asks it for a better answer.
    pub revision: String,
    /// Says what the better of two answers is.
    pub preference: String,
}

/// A list of principles, as TOML: `[[principle]]` with the fields of [`Principle`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constitution {
    /// The principles; at least one, each with a name of its own.
    #[serde(rename = "principle")]
    pub principles: Vec<Principle>,
}

impl Constitution {
    /// The principles that come with Togi, about helpfulness, honesty and harmlessness.
    ///
    /// # Errors
    /// Never, unless the build is damaged.
    pub fn built_in() -> Result<Self, DataError> {
        let text = include_str!("../sets/constitution.toml");
        Self::parse(text, Path::new("constitution.toml"))
    }

    /// The principles of the lab.
    ///
    /// # Errors
    /// Never, unless the build is damaged.
    pub fn lab() -> Result<Self, DataError> {
        let text = include_str!("../sets/lab_constitution.toml");
        Self::parse(text, Path::new("lab_constitution.toml"))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Names the file and what is wrong in it: the line, an unknown or missing field, an empty text, a
    /// name that comes twice, no principle at all.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let text = fs::read_to_string(path).map_err(DataError::io(path))?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let wrong = |reason: String| DataError::File {
            path: path.to_owned(),
            reason,
        };
        let all: Self = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if all.principles.is_empty() {
            return Err(wrong("has no [[principle]]".to_owned()));
        }
        for (number, principle) in all.principles.iter().enumerate() {
            let Principle {
                name,
                critique,
                revision,
                preference,
            } = principle;
            let fields = [
                ("name", name),
                ("critique", critique),
                ("revision", revision),
                ("preference", preference),
            ];
            if let Some((field, _)) = fields.iter().find(|(_, text)| text.trim().is_empty()) {
                let number = number + 1;
                return Err(wrong(format!("principle {number}: `{field}` is empty")));
            }
            if all.principles[..number].iter().any(|p| p.name == *name) {
                return Err(wrong(format!("two principles have the name `{name}`")));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_togi_reads_and_mistakes_are_named() {
        assert_eq!(Constitution::built_in().unwrap().principles.len(), 16);
        assert_eq!(Constitution::lab().unwrap().principles.len(), 4);
        let error = |text: &str| {
            let error = Constitution::parse(text, Path::new("c.toml")).unwrap_err();
            error.to_string()
        };
        assert!(error("principle = []").contains("no [[principle]]"));
        let whole = "[[principle]]\nname='a'\ncritique='b'\nrevision='c'\npreference='d'\n";
        assert!(Constitution::parse(whole, Path::new("c.toml")).is_ok());
        assert!(error(&whole.repeat(2)).contains("name `a`"));
        assert!(error(&whole.replace("'b'", "' '")).contains("`critique` is empty"));
        let misspelt = error(&whole.replace("revision", "revison"));
        assert!(
            misspelt.contains("c.toml") && misspelt.contains("revison"),
            "{misspelt}"
        );
    }
}
