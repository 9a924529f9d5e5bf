//! Numbers as people and models write them.

use std::{fmt, sync::LazyLock};

use regex::{Captures, Regex};
use serde::{Serialize, Serializer};

type Pattern = LazyLock<Option<Regex>>;

/// An exact number: a fraction in its lowest terms. `0.50`, `1/2` and `½` are the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    numerator: i128,
    denominator: i128,
}

impl Number {
    /// A fraction; `None` if the denominator is 0 or the terms are too large.
    pub fn new(numerator: i128, denominator: i128) -> Option<Self> {
        let (mut a, mut b) = (numerator.checked_abs()?, denominator.checked_abs()?);
        if b == 0 {
            return None;
        }
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let common = a * denominator.signum();
        Some(Self {
            numerator: numerator / common,
            denominator: denominator / common,
        })
    }

    /// The nearest floating-point number.
    pub fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    fn times(self, other: Self) -> Option<Self> {
        let numerator = self.numerator.checked_mul(other.numerator)?;
        Self::new(numerator, self.denominator.checked_mul(other.denominator)?)
    }

    fn over(self, other: Self) -> Option<Self> {
        self.times(Self::new(other.denominator, other.numerator)?)
    }

    fn plus(self, other: Self) -> Option<Self> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        let denominator = self.denominator.checked_mul(other.denominator)?;
        Self::new(left.checked_add(right)?, denominator)
    }

    fn power_of_ten(exponent: i32) -> Option<Self> {
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        if exponent < 0 {
            Self::new(1, power)
        } else {
            Self::new(power, 1)
        }
    }

    /// Digits with at most one point and no separators.
    fn decimal(text: &str) -> Option<Self> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits: i128 = format!("{whole}{part}").parse().ok()?;
        let places = i32::try_from(part.len()).ok()?;
        Self::new(digits, 1)?.times(Self::power_of_ten(-places)?)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self {
            numerator: i128::from(value),
            denominator: 1,
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// Groups: whole, figures and denominator of a mixed number; figures and denominator of another; power of
// ten twice; scale.
static NUMBER: Pattern = LazyLock::new(|| {
    let figures = r"(?:[0-9]+(?:,[0-9]+)*(?:\.[0-9]+)?|\.[0-9]+)";
    let under = format!("{figures}(?:/{figures})*");
    let power = r"(?:\s*(?:×|x|\*|·|\\times|\\cdot)\s*10\s*\^\s*\{?\s*([+-]?[0-9]+)\s*\}?|e([+-]?[0-9]+)\b)";
    let scale = r"[\s-]+(hundred|thousand|million|billion|trillion)s?\b";
    Regex::new(&format!(
        r"(?i)(?:([0-9]+)[ \t]+(?:and[ \t]+)?({figures})\s?/\s?({under})|({figures})(?:\s?/\s?({under}))?)(?:{power})?(?:{scale})?"
    ))
    .ok()
});
static FRACTION: Pattern = LazyLock::new(|| {
    Regex::new(r"\\[dtc]?frac\s*(?:\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}|([0-9])\s*([0-9]))")
        .ok()
});
static SEPARATOR: Pattern = LazyLock::new(|| {
    Regex::new(r"([0-9])(?:\\[,!;: ]|\{,\}|[_'\x{2019}\x{2009}\x{202f}\x{a0}\x{2007}])([0-9])").ok()
});
static CURRENCY: Pattern = LazyLock::new(|| {
    Regex::new(r"(?i)(?:\b(?:us|ca|au|hk|nz|s)?\$|[€£¥₹$]|\b(?:usd|eur|gbp|cad|aud|inr|rs\.?))\s?$")
        .ok()
});

/// Plain digits, points, commas and signs in place of LaTeX's and Unicode's.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let vulgar = match c {
            '½' => "1/2",
            '⅓' => "1/3",
            '⅔' => "2/3",
            '¼' => "1/4",
            '¾' => "3/4",
            '⅕' => "1/5",
            '⅖' => "2/5",
            '⅗' => "3/5",
            '⅘' => "4/5",
            '⅙' => "1/6",
            '⅚' => "5/6",
            '⅛' => "1/8",
            '⅜' => "3/8",
            '⅝' => "5/8",
            '⅞' => "7/8",
            _ => "",
        };
        if vulgar.is_empty() {
            plain.push(match c {
                '\u{2212}' | '\u{2013}' | '\u{fe63}' | '\u{ff0d}' => '-',
                '\u{2044}' => '/',
                '，' => ',',
                '．' => '.',
                '０'..='９' => char::from((u32::from(c) - u32::from('０')) as u8 + b'0'),
                c => c,
            });
        } else {
            plain.push(' ');
            plain.push_str(vulgar);
        }
    }
    let mut plain = plain.replace("\\$", "$").replace("\\%", "%");
    if let Some(fraction) = FRACTION.as_ref() {
        let over = |found: &Captures<'_>| {
            let part = |braced, bare| {
                found
                    .get(braced)
                    .or(found.get(bare))
                    .map_or("", |m| m.as_str())
            };
            format!(" {}/{}", part(1, 3), part(2, 4))
        };
        plain = fraction.replace_all(&plain, over).into_owned();
    }
    // Twice, since neighbours share a digit.
    for _ in 0..2 {
        if let Some(separator) = SEPARATOR.as_ref() {
            plain = separator.replace_all(&plain, "$1,$2").into_owned();
        }
    }
    plain
}

/// The numbers of a [`plain`] text in their order; `None` for one that is too large or divided by 0.
pub(super) fn numbers(text: &str) -> Vec<Option<Number>> {
    let Some(pattern) = NUMBER.as_ref() else {
        return Vec::new();
    };
    let mut numbers = Vec::new();
    for found in pattern.captures_iter(text) {
        let Some(all) = found.get(0) else { continue };
        let before = tail(&text[..all.start()]);
        let currency = CURRENCY.as_ref().and_then(|c| c.find(before));
        let before = currency.map_or(before, |currency| &before[..currency.start()]);
        let exponent = before.trim_end_matches(['{', ' ', '-']).ends_with('^');
        let last = before.chars().next_back();
        let attached = last.is_some_and(|c| c.is_alphabetic() || c == '_') && currency.is_none();
        let dotted = all.as_str().starts_with('.');
        if exponent || (attached && !dotted) {
            continue;
        }
        // The dot of "No.5" and "...5" is none of the number's.
        let dot = dotted && last.is_some_and(|c| c.is_alphanumeric() || c == '.');
        let read = read(&found, dot);
        if is_negative(before) {
            // The sign is the first one's, if there are several.
            let negative = |n: Number| n.times(Number::from(-1));
            let mut read = read.into_iter();
            numbers.extend(read.next().map(|first| first.and_then(negative)));
            numbers.extend(read);
        } else {
            numbers.extend(read);
        }
    }
    numbers
}

/// The end of a text, where a sign or a currency stands.
fn tail(text: &str) -> &str {
    let start = text.char_indices().rev().nth(31);
    start.map_or(text, |(start, _)| &text[start..])
}

/// One number, or several that only stand together.
fn read(found: &Captures<'_>, without_dot: bool) -> Vec<Option<Number>> {
    let group = |i| found.get(i).map(|m| m.as_str());
    let figures = group(2).or(group(4)).unwrap_or_default();
    let figures = if without_dot { &figures[1..] } else { figures };
    let (whole, under) = (group(1), group(3).or(group(5)));
    let lone = grouped(figures) && under.is_none_or(|u| grouped(u) && !u.contains('/'));
    let value = if lone { ratio(figures, under) } else { None };
    // `1 1/2` is one number; `2 3` and `5 7/2` are two.
    let proper = under.is_some() && value.is_some_and(|n| n.value() < 1.0);
    if !lone || (whole.is_some() && !proper) {
        let texts = [whole, Some(figures), under];
        let pieces = texts
            .into_iter()
            .flatten()
            .flat_map(|t| t.split([',', '/']));
        return pieces.map(Number::decimal).collect();
    }
    let mixed = match whole {
        Some(whole) => value.and_then(|n| Number::decimal(whole)?.plus(n)),
        None => value,
    };
    let exponent = group(6).or(group(7)).map(str::parse::<i32>);
    let scale = group(8).map(|word| match word.to_lowercase().as_str() {
        "hundred" => 2,
        "thousand" => 3,
        "million" => 6,
        "billion" => 9,
        _ => 12,
    });
    let scaled = match exponent {
        None => mixed,
        Some(power) => mixed.and_then(|n| n.times(Number::power_of_ten(power.ok()?)?)),
    };
    vec![scaled.and_then(|n| n.times(Number::power_of_ten(scale.unwrap_or(0))?))]
}

fn ratio(figures: &str, under: Option<&str>) -> Option<Number> {
    let above = Number::decimal(&figures.replace(',', ""))?;
    match under {
        Some(under) => above.over(Number::decimal(&under.replace(',', ""))?),
        None => Some(above),
    }
}

/// Whether the commas of figures are separators of thousands.
fn grouped(figures: &str) -> bool {
    let whole = figures.split('.').next().unwrap_or(figures);
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default().len();
    let mut rest = groups.peekable();
    rest.peek().is_none() || (first <= 3 && rest.all(|group| group.len() == 3))
}

/// Whether a sign stands before a number, and is no hyphen, range or subtraction.
fn is_negative(before: &str) -> bool {
    if let Some(rest) = before.strip_suffix('-') {
        let rest = CURRENCY
            .as_ref()
            .and_then(|c| c.find(rest))
            .map_or(rest, |currency| &rest[..currency.start()]);
        let left = rest.chars().next_back();
        let far = rest.trim_end().chars().next_back();
        let binary = |c: char| c.is_numeric() || matches!(c, ')' | ']' | '}' | '%');
        let glued = left.is_some_and(|c| c.is_alphabetic() || c == '-');
        return !glued && !far.is_some_and(binary);
    }
    let words = before.trim_end().to_lowercase();
    if words.ends_with("negative") {
        return true;
    }
    let Some(rest) = words.strip_suffix("minus") else {
        return false;
    };
    let rest = rest.trim_end();
    rest.is_empty()
        || ["is", "=", "equals", ":"]
            .iter()
            .any(|word| rest.ends_with(word))
}
