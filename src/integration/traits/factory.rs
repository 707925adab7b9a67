//! Factories: they make the objects of a pool.

use core::{
    convert::Infallible,
    future::{Future, ready},
};

/// Makes objects of type `T`.
///
/// Every function without arguments that returns a `T` is a factory. Implement the trait if making an object can fail.
///
/// # Examples
///
/// ```
/// use nebula_memory::integration::traits::Factory;
/// use std::{fs::File, io};
///
/// struct Log(&'static str);
///
/// impl Factory<File> for Log {
///     type Error = io::Error;
///
///     fn create(&self) -> io::Result<File> {
///         File::open(self.0)
///     }
/// }
///
/// assert!(Log("/no/such/file").create().is_err());
/// assert_eq!(Factory::<String>::create(&String::new), Ok(String::new()));
/// ```
pub trait Factory<T> {
    /// The error if an object could not be made.
    type Error;

    /// Makes an object. It may block, and may use the component that calls it.
    ///
    /// # Errors
    ///
    /// The factory's own error. The pool returns it to the caller unchanged.
    fn create(&self) -> Result<T, Self::Error>;
}

impl<F: Fn() -> T, T> Factory<T> for F {
    type Error = Infallible;

    fn create(&self) -> Result<T, Infallible> {
        Ok(self())
    }
}

/// Makes objects of type `T` without blocking a thread, on any runtime.
///
/// Every [`Factory`] is one, too: its `create` runs when the future is made.
///
/// # Examples
///
/// ```
/// use nebula_memory::integration::traits::AsyncFactory;
/// use std::{convert::Infallible, future::Future};
///
/// struct Sessions;
///
/// impl AsyncFactory<u64> for Sessions {
///     type Error = Infallible;
///
///     fn create(&self) -> impl Future<Output = Result<u64, Infallible>> + Send {
///         async { Ok(7) }
///     }
/// }
/// ```
pub trait AsyncFactory<T> {
    /// The error if an object could not be made.
    type Error;

    /// Makes an object. If the future is dropped before it is ready, nothing of the object may be left.
    fn create(&self) -> impl Future<Output = Result<T, Self::Error>> + Send;

    /// Checks an idle object, for example by a message to a server. Returns whether the object may still be used;
    /// `true` by default. A pool calls it in [`check`](crate::pool::Pool::check), not each time that it returns an
    /// object to a caller.
    fn check(&self, _: &mut T) -> impl Future<Output = bool> + Send {
        ready(true)
    }
}

impl<F, T> AsyncFactory<T> for F
where
    F: Factory<T>,
    T: Send,
    F::Error: Send,
{
    type Error = F::Error;

    fn create(&self) -> impl Future<Output = Result<T, F::Error>> + Send {
        ready(Factory::create(self))
    }
}
