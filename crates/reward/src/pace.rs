//! When the next request may go out.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Hands out the moments at which requests are sent, an equal gap apart, to all threads.
#[derive(Debug)]
pub(crate) struct Pace {
    gap: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    /// So many requests a minute; 0: no limit.
    pub(crate) fn new(requests_per_minute: u32) -> Self {
        let gap = match requests_per_minute {
            0 => Duration::ZERO,
            n => Duration::from_secs(60) / n,
        };
        Self {
            gap,
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for this thread's turn.
    pub(crate) fn turn(&self) {
        let now = Instant::now();
        let mine = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = now.max(*next);
            *next = mine + self.gap;
            mine
        };
        thread::sleep(mine - now);
    }

    /// No further turn for this long.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = until.max(*next);
    }
}

/// How long a `Retry-After` header, seconds or a date, asks to wait.
pub(crate) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<f64>() {
        // What does not fit a duration is longer than anyone waits.
        let wait = Duration::try_from_secs_f64(seconds.max(0.0));
        return Some(wait.unwrap_or(Duration::MAX));
    }
    let date = http_date(header)?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of a date that servers may send (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = parts[..] else {
        return None;
    };
    let day = day.parse::<u64>().ok().filter(|d| (1..=31).contains(d))?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year = year.parse::<u64>().ok();
    let year = year.filter(|y| (1970..10_000).contains(y))?;
    let mut seconds = 0;
    for part in time.splitn(3, ':') {
        let part = part.parse::<u64>().ok().filter(|p| *p <= 60)?;
        seconds = seconds * 60 + part;
    }
    // Days since 1 March of year 0, in which leap days come last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let since_epoch = days.checked_sub(719_468)?;
    Some(UNIX_EPOCH + Duration::from_secs(since_epoch * 86_400 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // `date -d '1994-11-06 08:49:37 UTC' +%s`.
        let then = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |header: &str| retry_after(header, then).map(|wait| wait.as_secs_f64());
        assert_eq!(check("2"), Some(2.0));
        assert_eq!(check(" 0.5 "), Some(0.5));
        assert_eq!(check("-3"), Some(0.0));
        assert_eq!(check("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30.0));
        assert_eq!(check("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0.0));
        // `date -d '2000-02-29 00:00:00 UTC' +%s`.
        let leap = (951_782_400 - 784_111_777) as f64;
        assert_eq!(check("Tue, 29 Feb 2000 00:00:00 GMT"), Some(leap));
        for nothing in ["", "soon", "Sun, 06 Foo 1994 08:49:37 GMT", "1 2 3 4 5 6"] {
            assert_eq!(check(nothing), None, "{nothing}");
        }
        assert!(check("1e300").unwrap() > 1e9);
        assert!(retry_after("NaN", then).is_some());
    }
}
