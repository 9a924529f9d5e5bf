//! Chat templates, rendered as `transformers` renders them.

use minijinja::{Environment, Error, ErrorKind, Value, context, value::Kwargs};

use crate::{error::DataError, record::Message};

/// A Jinja chat template with the special tokens that it may name.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
    pad: Option<String>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(
        source: &str,
        bos: Option<String>,
        eos: Option<String>,
        pad: Option<String>,
    ) -> Result<Self, DataError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        // `transformers` marks the assistant's tokens with this block; it renders its body.
        let plain = strip_generation_blocks(source);
        environment
            .add_template_owned("chat", plain)
            .map_err(|e| failure(&e))?;
        Ok(Self {
            source: source.to_owned(),
            environment,
            bos,
            eos,
            pad,
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
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
        let template = self
            .environment
            .get_template("chat")
            .map_err(|e| failure(&e))?;
        template
            .render(context! {
                messages => Value::from_serialize(messages),
                add_generation_prompt,
                bos_token => self.bos,
                eos_token => self.eos,
                pad_token => self.pad,
            })
            .map_err(|e| failure(&e))
    }
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

fn strip_generation_blocks(source: &str) -> String {
    let mut plain = source.to_owned();
    for tag in ["generation", "endgeneration"] {
        for (open, close) in [("{%", "%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%-", "-%}")] {
            plain = plain.replace(&format!("{open} {tag} {close}"), "");
        }
    }
    plain
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let json = serde_json::to_value(&value)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let mut text = String::new();
    python_json(&json, indent, 0, &mut text);
    Ok(Value::from_safe_string(text))
}

fn python_json(value: &serde_json::Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = indent {
            out.push('\n');
            out.push_str(&" ".repeat(indent * depth));
        }
    };
    let separator = if indent.is_some() { "," } else { ", " };
    match value {
        serde_json::Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(separator);
                }
                line(out, depth + 1);
                python_json(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            out.push('{');
            for (i, (key, item)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push_str(separator);
                }
                line(out, depth + 1);
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push_str(": ");
                python_json(item, indent, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, DataError> {
        let messages = [Message::new("user", " hi "), Message::new("assistant", "yo")];
        ChatTemplate::new(template, Some("<s>".into()), None, None)?.render(&messages, true)
    }

    #[test]
    fn templates_use_what_transformers_offers() {
        let text = render(
            "{{ bos_token }}{% for m in messages %}\n  {%- if m['role'] == 'user' %}\n[{{ m.content.strip() }}]{% else %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endif %}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        );
        assert_eq!(text.unwrap(), "<s>[hi]yo>");
        let json = render("{{ messages | tojson }}").unwrap();
        assert_eq!(
            json,
            r#"[{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yo"}]"#
        );
    }

    #[test]
    fn an_exception_of_the_template_is_the_error() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(error.to_string().contains("roles must alternate"), "{error}");
        assert!(render("{% if %}").is_err());
    }
}
