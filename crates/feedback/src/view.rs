//! What is drawn: the state of a [`Session`] as lines.
//!
//! Prompt and answers are one page that scrolls, whatever their number and length; two answers lie
//! side by side where there is room. Everything that comes from data is made harmless first.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::Paragraph,
};
use togi_data::Content;

use crate::{
    items::Item,
    open::{Open, Phase},
    picks::letter,
    scroll::Extent,
    session::Session,
    text::{safe, safe_line, width, wrap},
};

/// From this many columns on, two answers lie side by side.
const SIDE_BY_SIDE: u16 = 76;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws the state and says how its page lies on the screen; give that to
/// [`Session::set_extent`].
pub fn draw(frame: &mut Frame<'_>, session: &Session) -> Extent {
    let area = frame.area();
    if area.width < 20 || area.height < 8 {
        frame.render_widget(Paragraph::new("too small"), area);
        return Extent::default();
    }
    let footer = footer(session, area.width, area.height / 2);
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
        Constraint::Length(footer.len() as u16),
    ]);
    let [top, body, rule, bottom] = rows.areas(area);
    let page = match session.open() {
        Some((item, open)) => Page::of(item, open, area.width),
        None => Page::done(session),
    };
    let extent = Extent {
        lines: page.lines.len(),
        height: usize::from(body.height),
        headings: page.headings,
    };
    let first = session.scroll().min(extent.furthest());
    let mut shown: Vec<Line<'_>> = page.lines[first..]
        .iter()
        .take(extent.height)
        .cloned()
        .collect();
    // The heading stays while its text scrolls; a page down repeats the line that it covers.
    let heading = extent.headings.iter().rfind(|heading| **heading <= first);
    if let (Some(heading), Some(line)) = (heading, shown.first_mut()) {
        line.clone_from(&page.lines[*heading]);
    }
    frame.render_widget(header(session, top), top);
    frame.render_widget(Paragraph::new(shown), body);
    frame.render_widget(scroll_rule(first, &extent, rule.width), rule);
    frame.render_widget(Paragraph::new(footer), bottom);
    extent
}

/// Progress, who, and where the item is from.
fn header(session: &Session, area: Rect) -> Line<'static> {
    let (done, all) = session.progress();
    let left = format!(" {done}/{all} done  {} ", safe_line(session.annotator()));
    let room = usize::from(area.width).saturating_sub(width(&left));
    let place = session.open().map_or(String::new(), |(item, _)| {
        format!("{} ", safe_line(&item.place))
    });
    // The end of a path says more than its beginning.
    let mut right = place.as_str();
    while width(right) > room {
        let next = right
            .char_indices()
            .nth(1)
            .map_or(right.len(), |(at, _)| at);
        right = &right[next..];
    }
    let gap = " ".repeat(room - width(right));
    Line::from(vec![
        Span::styled(left, BOLD),
        Span::raw(gap),
        Span::raw(right.to_owned()),
    ])
    .style(REVERSED)
}

/// The line under the page: how much of it is on the screen.
fn scroll_rule(first: usize, extent: &Extent, columns: u16) -> Line<'static> {
    let last = (first + extent.height).min(extent.lines);
    let said = if extent.furthest() == 0 {
        String::new()
    } else {
        let more = if last < extent.lines { " ↓ more" } else { "" };
        format!(" lines {}-{last} of {}{more} ", first + 1, extent.lines)
    };
    let rest = usize::from(columns).saturating_sub(width(&said) + 2);
    Line::styled(format!("──{said}{}", "─".repeat(rest)), DIM)
}

/// What was done, what is asked, and the keys; at most so many lines.
fn footer(session: &Session, columns: u16, most: u16) -> Vec<Line<'static>> {
    let columns = usize::from(columns);
    let mut lines = Vec::new();
    let mut say = |text: &str, style: Style| {
        for line in wrap(text, columns) {
            // Spaces at which keys do not break.
            lines.push(Line::styled(line.replace('\u{a0}', " "), style));
        }
    };
    if !session.message().is_empty() {
        say(&safe_line(session.message()), DIM);
    }
    let undo = if session.can_undo() { "u undo" } else { "" };
    let Some((_, open)) = session.open() else {
        say(&keys(&[undo, "q quit"]), Style::new());
        return lines;
    };
    if open.phase == Phase::Reason {
        // The end of a long reason is what is being typed.
        let typed = wrap(&format!("Why: {}▏", safe_line(&open.reason)), columns);
        let room = usize::from(most).saturating_sub(lines.len() + 2).max(1);
        let skip = typed.len().saturating_sub(room);
        lines.extend(
            typed
                .into_iter()
                .skip(skip)
                .map(|line| Line::styled(line, BOLD)),
        );
        lines.push(Line::raw("Enter keeps it  Esc drops it"));
        return lines;
    }
    let last = letter(open.shown.len() - 1).to_ascii_lowercase();
    let letters = if last == 'b' {
        "a/b".to_owned()
    } else {
        format!("a-{last}")
    };
    let ranking = session.is_ranking();
    let question = match open.phase {
        Phase::Strength if ranking => {
            format!(
                "{}: how much better is the best than the worst?",
                open.picks.words()
            )
        }
        Phase::Strength => format!("{}: how much better is it?", open.picks.words()),
        _ if ranking && open.picks.count() > 0 => {
            format!("{} > … which is next?", open.picks.words())
        }
        _ if ranking => "Rank them: which is the best?".to_owned(),
        _ if open.shown.len() == 2 => "Which answer is better?".to_owned(),
        _ => "Which answer is the best?".to_owned(),
    };
    say(&question, BOLD);
    if !open.reason.is_empty() {
        let reason = format!("Why: {}", safe_line(&open.reason));
        let mut line = wrap(&reason, columns.saturating_sub(1)).swap_remove(0);
        if width(&line) < width(&reason) {
            line.push('…');
        }
        say(&line, DIM);
    }
    let scroll = "↑↓ PgUp PgDn Tab scroll";
    let keys = if open.phase == Phase::Strength {
        let back = "Esc back";
        keys(&[
            "1 slightly",
            "2 clearly",
            "3 much",
            back,
            "r reason",
            scroll,
            "q quit",
        ])
    } else {
        let pick = if ranking { "next best" } else { "best" };
        let pick = format!("{letters} {pick}");
        let (equal, back) = match (ranking, open.picks.count()) {
            (true, 1..) => ("= ties with the next", "Esc back"),
            _ => ("", ""),
        };
        let tie = if ranking { "t all tie" } else { "t tie" };
        keys(&[
            &pick, equal, back, tie, "s skip", "r reason", undo, scroll, "q quit",
        ])
    };
    say(&keys, Style::new());
    lines.truncate(usize::from(most));
    lines
}

/// Keys with what they do, two spaces apart; lines do not break inside of one.
fn keys(all: &[&str]) -> String {
    let said: Vec<String> = all
        .iter()
        .filter(|key| !key.is_empty())
        .map(|key| key.replace(' ', "\u{a0}"))
        .collect();
    said.join("  ")
}

/// The lines of prompt and answers, and which of them are headings.
struct Page {
    lines: Vec<Line<'static>>,
    headings: Vec<usize>,
}

impl Page {
    fn of(item: &Item, open: &Open, columns: u16) -> Self {
        let mut page = Self {
            lines: Vec::new(),
            headings: Vec::new(),
        };
        let all = usize::from(columns);
        page.heading(heading("Prompt", None, all));
        page.text(&content(&item.prompt), all);
        let answers: Vec<(String, Option<usize>, String)> = open
            .shown
            .iter()
            .enumerate()
            .map(|(position, answer)| {
                let name = format!("Answer {}", letter(position));
                let rank = open.picks.rank(position);
                (name, rank, content(&item.answers[*answer]))
            })
            .collect();
        match &answers[..] {
            [left, right] if columns >= SIDE_BY_SIDE => page.beside(left, right, all),
            _ => {
                for (name, rank, text) in &answers {
                    page.lines.push(Line::default());
                    page.heading(heading(name, *rank, all));
                    page.text(text, all);
                }
            }
        }
        page
    }

    fn done(session: &Session) -> Self {
        let (done, _) = session.progress();
        Self {
            lines: vec![
                Line::default(),
                Line::styled(format!("All {done} are done. Thank you."), BOLD),
                Line::raw(format!("{} judged in this sitting.", session.saved())),
            ],
            headings: Vec::new(),
        }
    }

    fn heading(&mut self, spans: Vec<Span<'static>>) {
        self.headings.push(self.lines.len());
        self.lines.push(Line::from(spans));
    }

    fn text(&mut self, text: &str, columns: usize) {
        let lines = wrap(text, columns);
        self.lines.extend(lines.into_iter().map(Line::raw));
    }

    /// Two answers in columns.
    fn beside(
        &mut self,
        left: &(String, Option<usize>, String),
        right: &(String, Option<usize>, String),
        columns: usize,
    ) {
        let half = (columns - 3) / 2;
        let other = columns - 3 - half;
        self.lines.push(Line::default());
        let mut spans = heading(&left.0, left.1, half);
        spans.push(Span::styled(" │ ", DIM));
        spans.extend(heading(&right.0, right.1, other));
        self.heading(spans);
        let (left, right) = (wrap(&left.2, half), wrap(&right.2, other));
        for at in 0..left.len().max(right.len()) {
            let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_default();
            let (left, right) = (line(&left), line(&right));
            let gap = " ".repeat(half.saturating_sub(width(&left)));
            self.lines.push(Line::from(vec![
                Span::raw(left + &gap),
                Span::styled(" │ ", DIM),
                Span::raw(right),
            ]));
        }
    }
}

/// `── Answer A ── 1st ─────`, so many cells wide.
fn heading(name: &str, rank: Option<usize>, columns: usize) -> Vec<Span<'static>> {
    let rank = match rank {
        Some(1) => " picked: best ".to_owned(),
        Some(rank) => format!(" picked: {rank}. "),
        None => String::new(),
    };
    let used = 4 + width(name) + width(&rank);
    vec![
        Span::styled("─ ", DIM),
        Span::styled(name.to_owned(), BOLD),
        Span::raw(" "),
        Span::styled(rank, REVERSED),
        Span::styled("─".repeat((columns + 1).saturating_sub(used)), DIM),
    ]
}

/// Text to read: messages with their roles.
fn content(content: &Content) -> String {
    let text = match content {
        Content::Text(text) => text.clone(),
        Content::Messages(messages) => match &messages[..] {
            [only] if only.role == "user" || only.role == "assistant" => only.content.clone(),
            messages => {
                let said = |m: &togi_data::Message| format!("{}: {}", m.role, m.content);
                let turns: Vec<String> = messages.iter().map(said).collect();
                turns.join("\n\n")
            }
        },
    };
    safe(text.trim_matches('\n'))
}
