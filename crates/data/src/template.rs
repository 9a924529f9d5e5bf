//! Chat templates, rendered as `transformers` renders them.
//!
//! Jinja with `trim_blocks`, `lstrip_blocks` and loop controls; Python's string and dictionary
//! methods; `raise_exception`, `strftime_now` and `tojson`; values printed as Python prints them;
//! `messages`, `tools` and `documents` (none), `add_generation_prompt` and the special tokens as
//! variables. Two things differ on purpose: `strftime_now` tells a fixed date unless another one is
//! set, so that a run does not depend on the day it is made, and it tells UTC. Formatting a string
//! with `%` is refused with an error.

use minijinja::{Environment, Error, ErrorKind, Output, State, Value, context};

use crate::{error::DataError, python, record::Message};

/// 26 July 2024, the date that Llama 3's templates fall back to, in seconds since 1970.
pub const DEFAULT_DATE: i64 = 1_721_952_000;

/// A Jinja chat template with the special tokens that it may name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    special: TemplateTokens,
}

/// Special tokens as a template sees them; what is missing is undefined there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
    /// `pad_token`.
    pub pad: Option<String>,
    /// `unk_token`.
    pub unk: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(source: &str, special: TemplateTokens) -> Result<Self, DataError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_formatter(print);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment.add_filter("tojson", python::tojson);
        environment.add_filter("string", |value: Value| python::str(&value));
        environment
            .add_template_owned("chat", plain_generation_blocks(source))
            .map_err(|e| failure(&e))?;
        let mut template = Self {
            source: source.to_owned(),
            environment,
            special,
        };
        template.set_date(DEFAULT_DATE);
        Ok(template)
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What `strftime_now` tells from now on, in seconds since 1970.
    pub fn set_date(&mut self, seconds: i64) {
        self.environment
            .add_function("strftime_now", move |format: String| {
                python::strftime(&format, seconds)
            });
    }

    /// The conversation as text.
    ///
    /// # Errors
    /// When the template raises an exception or uses what is not there.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, DataError> {
        let token = |token: &Option<String>| token.clone().map_or(Value::UNDEFINED, Value::from);
        let template = self
            .environment
            .get_template("chat")
            .map_err(|e| failure(&e))?;
        template
            .render(context! {
                messages => Value::from_serialize(messages),
                tools => (),
                documents => (),
                add_generation_prompt,
                bos_token => token(&self.special.bos),
                eos_token => token(&self.special.eos),
                pad_token => token(&self.special.pad),
                unk_token => token(&self.special.unk),
            })
            .map_err(|e| failure(&e))
    }
}

fn print(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    out.write_str(&python::str(value))
        .map_err(|_| Error::new(ErrorKind::WriteFailure, "the text cannot be written"))
}

fn failure(error: &Error) -> DataError {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        reason.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    DataError::Template { reason }
}

/// `transformers` marks the assistant's tokens with `{% generation %}` blocks, which render their
/// body: they become `{% with %}` blocks, which do so too, and keep assignments to themselves.
fn plain_generation_blocks(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        plain.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        match inner.trim_matches(['-', '+', ' ', '\t', '\n', '\r']) {
            "generation" => plain.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" => plain.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => plain.push_str(tag),
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, DataError> {
        let messages = [
            Message::new("user", " hi "),
            Message::new("assistant", "yo"),
        ];
        let special = TemplateTokens {
            bos: Some("<s>".to_owned()),
            ..TemplateTokens::default()
        };
        ChatTemplate::new(template, special)?.render(&messages, true)
    }

    #[test]
    fn templates_use_what_transformers_offers() {
        let cases = [
            (
                "{{ bos_token }}{% for m in messages %}\n  {%- if m['role'] == 'user' %}\n[{{ m.content.strip() }}]{% else %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endif %}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}",
                "<s>[hi]yo>",
            ),
            (
                "{{ eos_token }}|{{ none }}|{{ true }}|{{ 1.0 }}|{{ [1, 'a'] }}",
                "|None|True|1.0|[1, 'a']",
            ),
            (
                "{{ tools is none }}{{ documents is defined }}{{ eos_token is defined }}",
                "TrueTrueFalse",
            ),
            ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
            (
                "{% set x = 1 %}{%- generation -%} {% set x = 2 %}{{ x }} {%- endgeneration -%} {{ x }}",
                "21",
            ),
            (
                "{{ messages | tojson }}",
                r#"[{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo"}]"#,
            ),
            (
                "{{ {'b': [1, 2], 'a': 'é'} | tojson(indent=1) }}",
                "{\n \"b\": [\n  1,\n  2\n ],\n \"a\": \"é\"\n}",
            ),
            (
                "{{ {'b': 'é', 'a': 1e20} | tojson(ensure_ascii=true, sort_keys=true) }}",
                "{\"a\": 1e+20, \"b\": \"\\u00e9\"}",
            ),
        ];
        for (template, text) in cases {
            assert_eq!(render(template).unwrap(), text, "{template}");
        }
    }

    #[test]
    fn an_exception_of_the_template_is_the_error() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(
            error.to_string().contains("roles must alternate"),
            "{error}"
        );
        for bad in [
            "{% if %}",
            "{{ bos_token + 1 }}",
            "{{ messages[0].a.b }}",
            "{{ nothing() }}",
        ] {
            let error = ChatTemplate::new(bad, TemplateTokens::default())
                .and_then(|t| t.render(&[], true))
                .unwrap_err();
            assert!(error.to_string().starts_with("chat template: "), "{error}");
        }
    }
}
