//! The frame of the page: policy, style, script, contents, tables.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::comparison::Table;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("browser.js");

/// Sections, in order.
#[derive(Default)]
pub(super) struct Page {
    /// Anchor, heading, content.
    sections: Vec<(String, String, String)>,
}

impl Page {
    /// Adds a section; `body` is HTML, `heading` is text.
    pub(super) fn section(&mut self, heading: &str, body: &str) {
        let words: Vec<String> = heading
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let stem = format!("sec-{}", words.join("-"));
        let mut id = stem.clone();
        let mut count = 1;
        while self.sections.iter().any(|(other, ..)| *other == id) {
            count += 1;
            id = format!("{stem}-{count}");
        }
        self.sections
            .push((id, heading.to_owned(), body.to_owned()));
    }

    /// The whole page.
    pub(super) fn html(&self, title: &str, summary: &str) -> String {
        let (title, summary) = (escape(title), escape(summary));
        // Line ends as the browser's parser leaves them, so that the hash is of what it runs.
        let script = SCRIPT.replace("\r\n", "\n");
        let hash = base64(&Sha256::digest(script.as_bytes()));
        let mut page = format!(
            "<!doctype html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; \
             script-src 'sha256-{hash}'; style-src 'unsafe-inline'; img-src data:; \
             base-uri 'none'; form-action 'none'\">\n\
             <meta name=viewport content=\"width=device-width,initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header><h1>{title}</h1><p class=\"dim lines\">{summary}</p></header>\n"
        );
        if self.sections.len() > 1 {
            page.push_str("<nav aria-label=Contents><ul>");
            for (id, heading, _) in &self.sections {
                let heading = escape(heading);
                let _ = write!(page, "<li><a href=\"#{id}\">{heading}</a></li>");
            }
            page.push_str("</ul></nav>\n");
        }
        page.push_str("<main>\n");
        for (id, heading, body) in &self.sections {
            let heading = escape(heading);
            let _ = writeln!(
                page,
                "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{heading}</h2>{body}</section>"
            );
        }
        let _ = writeln!(page, "</main>\n<script>{script}</script>\n</body>\n</html>");
        page
    }
}

/// Text, as text of HTML or of a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// JSON as the content of a script element, which ends at nothing that a text can say.
pub(super) fn script_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A figure as an image with a name.
pub(super) fn labelled(svg: &str, label: &str) -> String {
    let named = format!("<svg role=img aria-label=\"{}\"", escape(label));
    svg.replacen("<svg", &named, 1)
}

pub(super) fn table((heading, rows): &Table) -> String {
    // Wide tables scroll, so the keyboard must reach them.
    let mut body =
        "<div class=scroll tabindex=0 role=region aria-label=Table><table><thead><tr>".to_owned();
    for cell in heading {
        let _ = write!(body, "<th scope=col>{}</th>", escape(cell));
    }
    body.push_str("</tr></thead><tbody>");
    for row in rows {
        body.push_str("<tr>");
        for cell in row {
            let _ = write!(body, "<td>{}</td>", escape(cell));
        }
        body.push_str("</tr>");
    }
    body + "</tbody></table></div>"
}

/// A number with about four digits, for reading.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        format!("{value}")
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.2e}")
    } else {
        let digits = (3.0 - size.log10().floor()).clamp(0.0, 5.0) as usize;
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            let letter = char::from(LETTERS[six as usize]);
            out.push(if place > three.len() { '=' } else { letter });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, code) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), code);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (12.0, "12"),
            (1200.0, "1200"),
            (0.25, "0.25"),
            (2.345_67, "2.346"),
            (1.5e-7, "1.50e-7"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn json_in_a_script_cannot_end_it() {
        let text = serde_json::json!("</script><!--\u{2028}&").to_string();
        let safe = script_json(&text);
        assert!(safe.is_ascii() && !safe.contains(['<', '>', '&']));
        let back: String = serde_json::from_str(&safe).unwrap();
        assert_eq!(back, "</script><!--\u{2028}&");
    }

    /// Every level of the tokens' colours under the text's colour, light and dark.
    #[test]
    fn text_on_a_tokens_colour_has_contrast() {
        let channel = |hex: &str| {
            let x = f64::from(u8::from_str_radix(hex, 16).unwrap()) / 255.0;
            if x <= 0.03928 {
                x / 12.92
            } else {
                ((x + 0.055) / 1.055).powf(2.4)
            }
        };
        let light = |hex: &str| {
            0.2126 * channel(&hex[0..2])
                + 0.7152 * channel(&hex[2..4])
                + 0.0722 * channel(&hex[4..6])
        };
        let themes: Vec<&str> = STYLE.split(":root{").skip(1).take(2).collect();
        assert_eq!(themes.len(), 2);
        for theme in themes {
            let color = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}:#")).unwrap();
                let hex: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
                let long = |c: char| format!("{c}{c}");
                light(&if hex.len() == 3 {
                    hex.chars().map(long).collect()
                } else {
                    hex
                })
            };
            let ratio = |one: &str, two: &str| {
                let (a, b) = (color(one), color(two));
                (a.max(b) + 0.05) / (a.min(b) + 0.05)
            };
            for level in [
                "s1", "s2", "s3", "s4", "p1", "p2", "p3", "n1", "n2", "n3", "card",
            ] {
                let found = ratio("fg", level);
                assert!(found >= 4.5, "--{level}: {found:.2}");
            }
            for (text, under) in [
                ("dim", "bg"),
                ("dim", "card"),
                ("a", "bg"),
                ("alarm", "alarm-bg"),
            ] {
                let found = ratio(text, under);
                assert!(found >= 4.5, "--{text} on --{under}: {found:.2}");
            }
        }
    }
}
