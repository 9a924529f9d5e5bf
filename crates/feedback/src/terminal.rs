//! A sitting in a terminal, which is as it was before when the sitting ends, even by a panic.

use std::{
    io::{IsTerminal, stdin, stdout},
    panic,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{
            self, DisableBracketedPaste, EnableBracketedPaste, Event, KeyCode, KeyEvent,
            KeyEventKind, KeyModifiers,
        },
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use crate::{
    error::FeedbackError,
    log::Log,
    session::{Effect, Key, Session},
    view,
};

/// Refuses input or output that is a file or a pipe.
///
/// # Errors
/// When one of them is not a terminal.
pub fn check() -> Result<(), FeedbackError> {
    if !stdin().is_terminal() {
        Err(FeedbackError::NotATerminal("input"))
    } else if !stdout().is_terminal() {
        Err(FeedbackError::NotATerminal("output"))
    } else {
        Ok(())
    }
}

/// Lets a person judge until they quit. Each judgement is in the log before the next item opens.
///
/// # Errors
/// When this is no terminal, or terminal or log fail; what was judged before is in the log.
pub fn run(session: &mut Session, log: &mut Log) -> Result<(), FeedbackError> {
    check()?;
    let _screen = Screen::enter().map_err(FeedbackError::Terminal)?;
    let backend = CrosstermBackend::new(stdout());
    let mut terminal = Terminal::new(backend).map_err(FeedbackError::Terminal)?;
    loop {
        let mut extent = None;
        terminal
            .draw(|frame| extent = Some(view::draw(frame, session)))
            .map_err(FeedbackError::Terminal)?;
        if let Some(extent) = extent {
            session.set_extent(extent);
        }
        let Some(key) = key(&event::read().map_err(FeedbackError::Terminal)?) else {
            continue;
        };
        match session.press(key, SystemTime::now()) {
            Effect::None => {}
            Effect::Quit => return Ok(()),
            Effect::Append(entry) => {
                let torn = log.append(&entry)?;
                // Keys pressed before an item is on the screen are not about it.
                let quit = forget_keys().map_err(FeedbackError::Terminal)?;
                session.appended(SystemTime::now());
                if let Some(torn) = torn {
                    session.say(torn.to_string());
                }
                if quit {
                    return Ok(());
                }
            }
        }
    }
}

/// Reads what was typed ahead; true if Ctrl-C was.
fn forget_keys() -> std::io::Result<bool> {
    let mut quit = false;
    while event::poll(Duration::ZERO)? {
        quit |= key(&event::read()?) == Some(Key::Interrupt);
    }
    Ok(quit)
}

/// A terminal's event as a key of the session; none for what only needs a new drawing.
fn key(event: &Event) -> Option<Key> {
    let key = match event {
        Event::Paste(text) => return Some(Key::Paste(text.clone())),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    let KeyEvent {
        code, modifiers, ..
    } = key;
    if modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(code, KeyCode::Char('c' | 'C')).then_some(Key::Interrupt);
    }
    // Alt and others are meant for something else; AltGr arrives as Control and Alt on Windows.
    if modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META) {
        return None;
    }
    Some(match code {
        KeyCode::Char(c) => Key::Char(*c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        _ => return None,
    })
}

type Hook = dyn Fn(&panic::PanicHookInfo<'_>) + Sync + Send + 'static;

/// The terminal in raw mode on its other screen, until this is dropped.
struct Screen {
    /// What happened at a panic before.
    hook: Arc<Hook>,
}

impl Screen {
    fn enter() -> std::io::Result<Self> {
        // A panic's message belongs on the screen that stays, so the hook leaves first.
        let hook: Arc<Hook> = panic::take_hook().into();
        let before = Arc::clone(&hook);
        panic::set_hook(Box::new(move |info| {
            leave();
            before(info);
        }));
        let screen = Self { hook };
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
        // While panicking, hooks cannot be changed.
        if !std::thread::panicking() {
            let hook = Arc::clone(&self.hook);
            panic::set_hook(Box::new(move |info| hook(info)));
        }
    }
}

/// A terminal that is gone needs nothing.
fn leave() {
    let _ = execute!(stdout(), Show, DisableBracketedPaste, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}
