//! Where a page that is longer than the screen stands.

use crate::session::Key;

/// How a drawn page lies on the screen, for scrolling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many lines there are.
    pub lines: usize,
    /// How many of them the screen has room for.
    pub height: usize,
    /// The lines with headings.
    pub headings: Vec<usize>,
}

impl Extent {
    /// The furthest that the page can be scrolled.
    pub fn furthest(&self) -> usize {
        self.lines.saturating_sub(self.height)
    }

    /// The first line on the screen after a key, from what it was.
    pub(crate) fn after(&self, at: usize, key: &Key) -> usize {
        let page = self.height.saturating_sub(1).max(1);
        let headings = || self.headings.iter().copied();
        let to = match key {
            Key::Up => at.saturating_sub(1),
            Key::Down => at + 1,
            Key::PageUp => at.saturating_sub(page),
            Key::PageDown => at + page,
            Key::Home => 0,
            Key::End => usize::MAX,
            Key::Tab => headings().find(|heading| *heading > at).unwrap_or(at),
            Key::BackTab => headings().rfind(|heading| *heading < at).unwrap_or(0),
            _ => at,
        };
        to.min(self.furthest())
    }
}
