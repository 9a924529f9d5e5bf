//! JSON schemas and context-free grammars, followed by `llguidance`.

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::earley::SlicedBiasComputer;
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Map, Value, json};

use super::{error::ConstraintError, trie::Mask};

/// The library's tries for a vocabulary.
///
/// It knows one text a token. Where a text's first token has another, the first mask comes from a
/// trie of its own, and the first token is told byte by byte: ids from `size + 1` on are single bytes.
pub(super) struct Grammars {
    first: Option<ParserFactory>,
    later: ParserFactory,
    size: u32,
}

fn factory(texts: &[Option<Vec<u8>>]) -> Result<ParserFactory, String> {
    // The library takes 0xff for a mark of special tokens and allows texts of up to 1,024 bytes.
    let known = |text: &&Vec<u8>| {
        text.len() < 1024 && !text.iter().any(|b| matches!(b, 0xc0 | 0xc1 | 0xf5..))
    };
    let mut words: Vec<Vec<u8>> = texts
        .iter()
        .map(|text| text.as_ref().filter(known).cloned().unwrap_or_default())
        .collect();
    let end = words.len() as u32;
    words.push(Vec::new());
    words.extend((0..0xf5_u8).map(|byte| vec![byte]));
    let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
        .map_err(|e| e.to_string())?;
    factory.quiet();
    factory.limits_mut().verbose_errors = false;
    Ok(factory)
}

fn reason(error: impl ToString) -> String {
    error.to_string().replace("\n<non-verbose/>", "")
}

impl Grammars {
    pub(super) fn new(
        first: Option<&[Option<Vec<u8>>]>,
        later: &[Option<Vec<u8>>],
    ) -> Result<Self, String> {
        Ok(Self {
            first: first.map(factory).transpose()?,
            later: factory(later)?,
            size: later.len() as u32,
        })
    }

    pub(super) fn json_schema(&self, schema: &Value) -> Result<Grammar, ConstraintError> {
        let compile =
            |schema: &Value| self.compile(&TopLevelGrammar::from_json_schema(schema.clone()));
        compile(schema).map_err(|outer| {
            let (pointer, inner) = innermost(schema, &|part| compile(part).err());
            ConstraintError::JsonSchema {
                pointer,
                reason: inner.unwrap_or(outer),
            }
        })
    }

    pub(super) fn lark(&self, grammar: &str) -> Result<Grammar, ConstraintError> {
        self.compile(&TopLevelGrammar::from_lark(grammar.to_owned()))
            .map_err(|reason| ConstraintError::Lark { reason })
    }

    fn compile(&self, grammar: &TopLevelGrammar) -> Result<Grammar, String> {
        let matcher = |factory: &ParserFactory| {
            let parser = factory.create_parser(grammar.clone()).map_err(reason)?;
            Ok::<_, String>(Matcher::new(Ok(parser)))
        };
        let later = matcher(&self.later)?;
        let beginning = match &self.first {
            Some(first) => matcher(first)?,
            None => later.clone(),
        };
        let mut run = Run {
            matcher: beginning,
            size: self.size,
        };
        let may_end = run.may_end()?;
        let mut start = Mask::empty(self.size as usize);
        run.allowed(&mut start)?;
        Ok(Grammar {
            matcher: Mutex::new(later),
            size: self.size,
            start,
            may_end,
        })
    }
}

/// The innermost part of a schema that is wrong by itself, as a JSON pointer, and what is wrong.
fn innermost(schema: &Value, wrong: &dyn Fn(&Value) -> Option<String>) -> (String, Option<String>) {
    let mut pointer = "#".to_owned();
    let mut found = None;
    let mut part = schema.clone();
    // What `$ref` may point to goes along, but is not looked into twice.
    let shared: Map<String, Value> = ["$defs", "definitions", "$schema", "$id"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), schema.get(key)?.clone())))
        .collect();
    'down: loop {
        for (path, child) in parts(&part) {
            let mut whole = child.clone();
            if let Value::Object(map) = &mut whole {
                map.extend(shared.clone());
            }
            if let Some(reason) = wrong(&whole) {
                pointer.push_str(&path);
                found = Some(reason);
                part = child;
                continue 'down;
            }
        }
        return (pointer, found);
    }
}

/// The schemas right inside a schema, with the way to each.
fn parts(schema: &Value) -> Vec<(String, Value)> {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let mut parts = Vec::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(map)) => {
                let inside = |(name, part): (&String, &Value)| {
                    (format!("/{key}/{}", escaped(name)), part.clone())
                };
                parts.extend(map.iter().map(inside));
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(list)) => {
                let inside = |(i, part): (usize, &Value)| (format!("/{key}/{i}"), part.clone());
                parts.extend(list.iter().enumerate().map(inside));
            }
            ("items" | "additionalProperties" | "additionalItems", Value::Object(_)) => {
                parts.push((format!("/{key}"), value.clone()));
            }
            _ => {}
        }
    }
    parts
}

/// A schema that every JSON object satisfies.
pub(super) fn any_object() -> Value {
    json!({"type": "object"})
}

/// A compiled grammar.
pub(super) struct Grammar {
    matcher: Mutex<Matcher>,
    size: u32,
    /// Tokens that may come first.
    pub(super) start: Mask,
    /// True if the empty text satisfies it.
    pub(super) may_end: bool,
}

impl Grammar {
    pub(super) fn run(&self) -> Run {
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner);
        Run {
            matcher: matcher.clone(),
            size: self.size,
        }
    }
}

/// A grammar on its way through a text.
pub(super) struct Run {
    matcher: Matcher,
    size: u32,
}

impl Run {
    /// Writes the tokens that may come next.
    pub(super) fn allowed(&mut self, mask: &mut Mask) -> Result<(), String> {
        mask.clear();
        // It stops where only the end can follow.
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        match self.matcher.compute_mask() {
            Ok(allowed) => {
                mask.copy_from(allowed.as_slice());
                for id in self.size..self.size.next_multiple_of(32) {
                    mask.remove(id);
                }
                Ok(())
            }
            Err(error) if reason(&error).starts_with("NoExtensionBias") => Ok(()),
            Err(error) => Err(reason(error)),
        }
    }

    pub(super) fn may_end(&mut self) -> Result<bool, String> {
        self.matcher.is_accepting().map_err(reason)
    }

    /// Reads a token, or the bytes of one; false if it is not allowed.
    pub(super) fn advance(&mut self, id: u32, bytes: Option<&[u8]>) -> Result<bool, String> {
        let ids: Vec<u32> = match bytes {
            None => vec![id],
            Some(bytes) => bytes
                .iter()
                .map(|byte| self.size + 1 + u32::from(*byte))
                .collect(),
        };
        if bytes.is_some_and(|bytes| bytes.iter().any(|byte| *byte >= 0xf5)) {
            return Ok(false);
        }
        if self.matcher.validate_tokens(&ids).map_err(reason)? < ids.len() {
            return Ok(false);
        }
        self.matcher.consume_tokens(&ids).map_err(reason)?;
        Ok(true)
    }
}
