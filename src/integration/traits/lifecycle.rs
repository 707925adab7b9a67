//! The functions that a pool needs for the objects that it keeps.

use crate::core::{
    traits::{MemoryUsage, Resettable},
    types::ReclaimClass,
};
use core::convert::Infallible;

/// Makes, measures and cleans the objects of a pool.
///
/// Every function that returns a [`Resettable`] value with a [`MemoryUsage`] is a life cycle: a pool of buffers
/// needs only `Vec::<u8>::new`. Implement the trait if making an object can fail, or if an object may not be fit
/// to be used again.
///
/// # Examples
///
/// ```
/// use std::{io, net::TcpStream};
/// use nebula_memory::integration::traits::Lifecycle;
///
/// struct Connections;
///
/// impl Lifecycle for Connections {
///     type Object = TcpStream;
///     type Error = io::Error;
///
///     fn create(&self) -> io::Result<TcpStream> { TcpStream::connect("127.0.0.1:5432") }
///     fn recycle(&self, stream: &mut TcpStream) -> bool { stream.take_error().is_ok() }
///     fn bytes(&self, _: &TcpStream) -> usize { 16 << 10 }
/// }
/// ```
pub trait Lifecycle {
    /// The type of the pooled objects.
    type Object;
    /// The error if an object could not be made.
    type Error;

    /// Makes an object. The pool calls it when no object is idle, and holds no lock.
    ///
    /// # Errors
    ///
    /// An error of the life cycle's own; it reaches the caller unchanged.
    fn create(&self) -> Result<Self::Object, Self::Error>;

    /// Cleans an object that was returned. Returns whether it is fit to be used again; if not, the pool drops it.
    fn recycle(&self, object: &mut Self::Object) -> bool;

    /// Returns the bytes that the object holds besides its own size. The pool charges the ledger for them.
    fn bytes(&self, object: &Self::Object) -> usize;

    /// Returns the bytes that the object itself has charged to the pool's node, and releases when it is dropped;
    /// 0 by default. The pool does not charge them again. In a reclaim they count as bytes that the pool can
    /// release.
    fn charged_bytes(&self, _: &Self::Object) -> usize {
        0
    }

    /// Returns the class of the idle objects: [`Pool`](ReclaimClass::Pool) by default.
    fn class(&self) -> ReclaimClass {
        ReclaimClass::Pool
    }
}

impl<F, T> Lifecycle for F
where
    F: Fn() -> T,
    T: Resettable + MemoryUsage,
{
    type Object = T;
    type Error = Infallible;

    fn create(&self) -> Result<T, Infallible> {
        Ok(self())
    }

    fn recycle(&self, object: &mut T) -> bool {
        object.reset();
        true
    }

    fn bytes(&self, object: &T) -> usize {
        object.used_bytes()
    }
}
