//! What a pool needs to know about the objects that it keeps.

use crate::core::{
    traits::{MemoryUsage, Resettable},
    types::ReclaimClass,
};
use core::convert::Infallible;

/// Makes, measures and cleans the objects of a pool.
///
/// Every function whose result is [`Resettable`] and knows its [`MemoryUsage`] is a life cycle: a
/// `Vec::<u8>::new` is all that a pool of buffers needs. Implement the trait where making an object
/// can fail, or an object can turn out unfit to be used again.
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
    /// What is pooled.
    type Object;
    /// Why an object could not be made.
    type Error;

    /// Makes an object. Called when none is idle; no lock is held.
    ///
    /// # Errors
    ///
    /// The life cycle's own; it reaches the caller unchanged.
    fn create(&self) -> Result<Self::Object, Self::Error>;

    /// Cleans an object that was given back, and says whether it is fit to be used again. One that
    /// is not is dropped.
    fn recycle(&self, object: &mut Self::Object) -> bool;

    /// Bytes that the object holds beside its own size: what the ledger is charged for it.
    fn bytes(&self, object: &Self::Object) -> usize;

    /// Bytes that the object itself has charged to the pool's node, and releases when it is dropped;
    /// 0 by default. The pool does not charge them again. When the ledger asks for memory, they count
    /// as bytes that the pool can give back.
    fn charged_bytes(&self, _: &Self::Object) -> usize {
        0
    }

    /// The class of the idle objects: [`Pool`](ReclaimClass::Pool) by default.
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
