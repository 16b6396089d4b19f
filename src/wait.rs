//! Waiting for something that ends soon and sends no event: look, pause, look again, until a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// The first pause between two looks.
const PAUSE_MIN: Duration = Duration::from_micros(200);
/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Looks until there is a result, or `None` when `deadline` has passed; always looks once.
pub(crate) fn poll_until<T>(deadline: Instant, look: impl FnMut() -> Option<T>) -> Option<T> {
    retry_until(deadline, look, Option::is_some)
}

/// Tries until an attempt's result settles the matter or `deadline` has passed, and gives the last; always tries once.
pub(crate) fn retry_until<T>(deadline: Instant, mut attempt: impl FnMut() -> T, settles: impl Fn(&T) -> bool) -> T {
    let mut pause = PAUSE_MIN;
    loop {
        let result = attempt();
        let left = deadline.saturating_duration_since(Instant::now());
        if settles(&result) || left.is_zero() {
            return result;
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_has_passed_allows_one_look() {
        let mut looks = 0;
        let result = poll_until(Instant::now(), || {
            looks += 1;
            None::<()>
        });
        assert_eq!((result, looks), (None, 1));
    }

    #[test]
    fn a_result_ends_the_wait() {
        let mut looks = 0;
        let deadline = Instant::now() + Duration::from_secs(5);
        let result = poll_until(deadline, || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(result, Some(3));
    }
}
