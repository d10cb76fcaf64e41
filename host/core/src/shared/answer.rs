//! What a backend says, now or later.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

/// An answer that is there, or one that comes later: whoever gets the latter waits
/// (`wit/README.md`, "Waiting"), and polls it where it may.
pub enum Answer<T> {
    /// It is there.
    Now(T),
    /// It comes later.
    Later(Pin<Box<dyn Future<Output = T> + Send>>),
}

impl<T: fmt::Debug> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

impl<T> Answer<T> {
    /// The answer if it is there.
    pub fn now(self) -> Option<T> {
        match self {
            Self::Now(answer) => Some(answer),
            Self::Later(_) => None,
        }
    }

    /// What `with` makes of the answer, whenever it comes.
    pub fn map<U>(self, with: impl FnOnce(T) -> U + Send + 'static) -> Answer<U>
    where
        T: 'static,
    {
        match self {
            Self::Now(answer) => Answer::Now(with(answer)),
            Self::Later(answer) => Answer::Later(Box::pin(async move { with(answer.await) })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn what_is_made_of_an_answer_waits_for_it() {
        let made = Answer::Now(20).map(|n| n + 1);
        assert_eq!(made.now(), Some(21));
        let mut asked = 0;
        let later = std::future::poll_fn(move |_| {
            asked += 1;
            if asked < 3 {
                Poll::Pending
            } else {
                Poll::Ready(20)
            }
        });
        let Answer::Later(mut made) = Answer::Later(Box::pin(later)).map(|n| n + 1) else {
            panic!("it was not there");
        };
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(made.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(made.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(made.as_mut().poll(&mut cx), Poll::Ready(21));
    }
}
