//! A range of bytes inside one message. Spans carry no lifetime: whoever holds
//! one also knows the buffer that it speaks of.

/// A half-open range `start..end` of offsets into a message's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// A span from `start` to `end`; offsets that do not fit 32 bits are clamped
    /// (the index refuses longer messages before it makes any span).
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start: clamp(start),
            end: clamp(end),
        }
    }

    /// A span in a message that the index let pass: its offsets fit.
    #[inline]
    pub(crate) const fn at(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes that the span covers, or nothing when it does not lie in `bytes`.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Number of bytes covered.
    #[must_use]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether the span covers nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The same bytes, so much farther back; one that is empty stands nowhere.
    pub(crate) fn moved(self, by: i64) -> Self {
        if self.is_empty() {
            return self;
        }
        self.shifted(by)
    }

    /// The same, also of one that is empty.
    pub(crate) fn shifted(self, by: i64) -> Self {
        let offset = |old: u32| u32::try_from(i64::from(old) + by).unwrap_or(0);
        Self {
            start: offset(self.start),
            end: offset(self.end),
        }
    }

    /// Whether `other` lies wholly inside this span.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

fn clamp(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// The span of `part` inside `whole`, when `part` is a subslice of it.
pub(crate) fn span_within(whole: &[u8], part: &[u8]) -> Option<Span> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then(|| Span::new(start, end))
}
