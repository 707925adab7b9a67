//! Counts how long a tenant waits for memory, and how often it is refused.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// How long a job waits for memory. A waiting job has no reservation, so jobs do not wait for each other, and all
/// holders are working. Only a request that no release can serve waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers of waits by their length in microseconds, in powers of two.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    counts: [AtomicU64; 32],
    refused: AtomicU64,
}

impl Waits {
    pub(crate) fn note(&self, wait: Duration) {
        let bits = u64::BITS - u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).leading_zeros();
        self.counts[(bits as usize).min(31)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of refused requests.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Returns the median wait, rounded up to a power of two of microseconds; `None` if there were no waits.
    pub(crate) fn median(&self) -> Option<Duration> {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let all: u64 = counts.iter().sum();
        let mut sum = 0;
        let reached = counts.iter().position(|count| {
            sum += count;
            all > 0 && sum >= all.div_ceil(2)
        });
        Some(Duration::from_micros(1 << reached?))
    }
}

#[cfg(test)]
mod tests {
    use super::Waits;
    use std::time::Duration;

    #[test]
    fn half_of_the_waits_are_shorter_than_the_median() {
        let waits = Waits::default();
        [0, 3, 5, 6, 900].into_iter().for_each(|wait| waits.note(Duration::from_micros(wait)));
        assert_eq!(waits.median(), Some(Duration::from_micros(8)));
        assert_eq!(Waits::default().median(), None);
    }
}
