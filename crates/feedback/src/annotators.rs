//! Who may judge.

use std::{fs, path::Path};

use crate::error::FeedbackError;

/// The name of an annotator, without spaces around it.
///
/// # Errors
/// When it is empty, too long, or has control characters.
pub fn name(given: &str) -> Result<String, FeedbackError> {
    let name = given.trim();
    let reason = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > 64 {
        "is longer than 64 characters"
    } else if name.chars().any(char::is_control) {
        "has control characters"
    } else {
        return Ok(name.to_owned());
    };
    Err(FeedbackError::Annotator(format!(
        "the annotator's name {reason}"
    )))
}

/// The names in a file, one a line; empty lines do not count.
///
/// # Errors
/// When the file cannot be read or names nobody.
pub fn list(path: &Path) -> Result<Vec<String>, FeedbackError> {
    let text = fs::read_to_string(path).map_err(FeedbackError::io(path))?;
    let text = text.trim_start_matches('\u{feff}');
    let names: Vec<String> = text
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    if names.is_empty() {
        let place = path.display().to_string();
        return Err(FeedbackError::row(place, "names nobody"));
    }
    Ok(names)
}

/// Refuses a name that is not in the list, and says which was meant.
///
/// # Errors
/// When it is not in the list.
pub fn known(name: &str, names: &[String], path: &Path) -> Result<(), FeedbackError> {
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let lower = name.to_lowercase();
    let nearest = names
        .iter()
        .map(|known| {
            let distance = strsim::damerau_levenshtein(&lower, &known.to_lowercase());
            (distance, known)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= 1.max(known.chars().count() / 3));
    let hint = match nearest {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => String::new(),
    };
    let path = path.display();
    Err(FeedbackError::Annotator(format!(
        "annotator `{name}` is not in {path}{hint}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_refused_and_the_nearest_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names");
        fs::write(&path, "Ann\n\n  Bernhard \r\n").unwrap();
        let names = list(&path).unwrap();
        assert_eq!(names, ["Ann", "Bernhard"]);
        assert!(known("Bernhard", &names, &path).is_ok());
        let said = |name: &str| known(name, &names, &path).unwrap_err().to_string();
        assert!(said("bernard").ends_with("did you mean `Bernhard`?"));
        assert!(said("ann").ends_with("did you mean `Ann`?"));
        assert!(said("Zoe").ends_with("names"), "{}", said("Zoe"));
        fs::write(&path, "\n").unwrap();
        assert!(
            list(&path)
                .unwrap_err()
                .to_string()
                .ends_with("names nobody")
        );
    }

    #[test]
    fn names_are_one_word_or_more() {
        assert_eq!(name(" Ann Lee ").unwrap(), "Ann Lee");
        for bad in ["", "  ", "a\u{1b}[31m", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
