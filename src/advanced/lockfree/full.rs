use core::{error::Error, fmt};

/// The error of a push into a structure that is full. It returns the value.
///
/// # Examples
///
/// ```
/// use nebula_memory::lockfree::{Full, Queue};
///
/// let queue = Queue::try_with_capacity(1)?;
/// queue.push("first")?;
/// let Err(Full(back)) = queue.push("second") else { unreachable!("it is full") };
/// assert_eq!(back, "second");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(
    /// The value that found no room.
    pub T,
);

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for another value")
    }
}

impl<T> Error for Full<T> {}
