//! Life cycles: how a pool measures, cleans, checks and destroys its objects.

use crate::core::{
    traits::{MemoryUsage, Resettable},
    types::ReclaimClass,
};

/// Measures, cleans, checks and destroys the objects of a pool. A [`Factory`](super::Factory) makes them.
///
/// Every function that returns a value with the traits [`Resettable`] and [`MemoryUsage`] is a life cycle and a
/// factory: a pool of buffers needs only `Vec::<u8>::new`. Implement the trait for objects that can become unusable,
/// such as connections, or that must be closed before they are dropped.
///
/// A pool calls these functions without any lock. They may use the pool and the ledger. If one panics, the object
/// is dropped and its bytes are released.
///
/// # Examples
///
/// ```
/// use std::{io, net::TcpStream};
/// use nebula_memory::integration::traits::{Factory, Lifecycle};
///
/// struct Connections;
///
/// impl Factory<TcpStream> for Connections {
///     type Error = io::Error;
///
///     fn create(&self) -> io::Result<TcpStream> { TcpStream::connect("127.0.0.1:5432") }
/// }
///
/// impl Lifecycle for Connections {
///     type Object = TcpStream;
///
///     fn recycle(&self, stream: &mut TcpStream) -> bool { stream.take_error().is_ok() }
///     fn bytes(&self, _: &TcpStream) -> usize { 16 << 10 }
/// }
/// ```
pub trait Lifecycle {
    /// The type of the pooled objects.
    type Object;

    /// Cleans an object that was returned to the pool. Returns whether it may be used again. If not, the pool destroys
    /// it.
    fn recycle(&self, object: &mut Self::Object) -> bool;

    /// Returns the bytes that the object holds besides its own size. The pool charges the ledger for them.
    fn bytes(&self, object: &Self::Object) -> usize;

    /// Checks an idle object before the pool returns it to a caller. Returns whether it may still be used; `true` by
    /// default. If not, the pool destroys it and takes another one. Each caller waits for this check, so it should not
    /// ask a server; see [`AsyncFactory::check`](super::AsyncFactory::check).
    fn validate(&self, _: &mut Self::Object) -> bool {
        true
    }

    /// Destroys an object that the pool does not keep. The default drops it. Its bytes are released afterwards.
    fn destroy(&self, object: Self::Object) {
        drop(object);
    }

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

    fn recycle(&self, object: &mut T) -> bool {
        object.reset();
        true
    }

    fn bytes(&self, object: &T) -> usize {
        object.used_bytes()
    }
}
