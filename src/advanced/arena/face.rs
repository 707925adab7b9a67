//! The methods that allocate, for every face of an arena alike. Whoever expands them imports `Values` and `Formatted`.

/// Writes the methods over `self.raw`. `$begin` and `$end` are the lines around each example, in
/// which `arena` is what the methods are called on.
macro_rules! allocating_methods {
    (live: $live:lifetime, begin: $begin:literal, end: $end:literal) => {
        allocating_methods! {
            @one $live, $begin, $end,
            "Moves `value` into the arena. It is not dropped.\n\nThe value may pass over the stack \
             on its way; [`alloc_with`](Self::alloc_with) makes it in its place.",
            "let x = arena.alloc(7_u64);\n*x += 1;\nassert_eq!(*x, 8);",
            alloc, try_alloc, [T], (value: T), T,
            |raw| raw.value(|| value)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "What `make` returns, made in its place in the arena. The bytes are taken before `make` is \
             called. If it panics they go back, unless it has allocated in the arena itself. The value is \
             not dropped.",
            "let page = arena.alloc_with(|| [0_u8; 4096]);\nassert_eq!(page.len(), 4096);",
            alloc_with, try_alloc_with, [T], (make: impl FnOnce() -> T), T,
            |raw| raw.value(make)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A copy of `text`.",
            "let name = arena.alloc_str(\"nebula\");\nname.make_ascii_uppercase();\n\
             assert_eq!(name, \"NEBULA\");",
            alloc_str, try_alloc_str, [], (text: &str), str,
            |raw| raw.str(text)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "The text that `format!` would make of the same arguments.\n\nWhile the text grows it may \
             be moved; what it does not need in the end goes back to the arena. It panics too where \
             an implementation of a formatting trait returns an error, as `format!` does.",
            "let path = arena.alloc_fmt(format_args!(\"{}/{}.rs\", \"src\", \"lib\"));\n\
             assert_eq!(path, \"src/lib.rs\");",
            alloc_fmt, try_alloc_fmt, [], (text: ::core::fmt::Arguments<'_>), str,
            |raw| raw.format(text),
            $crate::advanced::arena::FormatError,
            "[`FormatError`](crate::advanced::arena::FormatError): as for the other methods, or an \
             implementation of a formatting trait returned an error. Nothing of the text stays."
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A slice of all that an iterator yields, however much that is.\n\nWhile the slice grows it \
             may be moved, and the iterator may allocate in the arena meanwhile; what it does not need \
             in the end goes back. If the iterator panics, the values before are dropped. Where the \
             length is known, [`alloc_slice_fill_iter`](Self::alloc_slice_fill_iter) takes it at once.",
            "let words = arena.alloc_iter(\"one two three\".split(' '));\n\
             assert_eq!(words, [\"one\", \"two\", \"three\"]);",
            alloc_iter, try_alloc_iter, [I: IntoIterator], (values: I), [I::Item],
            |raw| raw.collect(values)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A bytewise copy of `values`.",
            "let values = arena.alloc_slice_copy(&[3, 1, 2]);\nvalues.sort();\n\
             assert_eq!(values, [1, 2, 3]);",
            alloc_slice_copy, try_alloc_slice_copy, [T: Copy], (values: &[T]), [T],
            |raw| raw.copy(values)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A clone of each of `values`. If a clone panics, those before it are dropped.",
            "let names = arena.alloc_slice_clone(&[Some(1), None]);\n\
             assert_eq!(names, [Some(1), None]);",
            alloc_slice_clone, try_alloc_slice_clone, [T: Clone], (values: &[T]), [T],
            |raw| raw.fill_iter(values.iter().cloned())
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A slice of `len` clones of `value`. If a clone panics, those before it are dropped.",
            "let zeroes = arena.alloc_slice_fill(3, 0);\nassert_eq!(zeroes, [0, 0, 0]);",
            alloc_slice_fill, try_alloc_slice_fill, [T: Clone], (len: usize, value: T), [T],
            |raw| raw.fill_with(len, |_| value.clone())
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A slice of `len` default values. If making one panics, those before it are dropped.",
            "let counts = arena.alloc_slice_fill_default::<u32>(2);\nassert_eq!(counts, [0, 0]);",
            alloc_slice_fill_default, try_alloc_slice_fill_default, [T: Default], (len: usize), [T],
            |raw| raw.fill_with(len, |_| T::default())
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A slice of `len` values, `make(0)` to `make(len - 1)`. If `make` panics, the values \
             before are dropped.",
            "let squares = arena.alloc_slice_fill_with(4, |i| i * i);\n\
             assert_eq!(squares, [0, 1, 4, 9]);",
            alloc_slice_fill_with, try_alloc_slice_fill_with,
            [T], (len: usize, make: impl FnMut(usize) -> T), [T],
            |raw| raw.fill_with(len, make)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "A slice of all that an iterator of known length yields. It is shorter than promised if \
             the iterator yields fewer, and never longer. If the iterator panics, the values before \
             are dropped.",
            "let doubled = arena.alloc_slice_fill_iter([1, 2].iter().map(|x| x * 2));\n\
             assert_eq!(doubled, [2, 4]);",
            alloc_slice_fill_iter, try_alloc_slice_fill_iter,
            [I: IntoIterator<IntoIter: ExactSizeIterator>], (values: I), [I::Item],
            |raw| raw.fill_iter(values)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Room for a value, to be written later.",
            "let x = arena.alloc_uninit::<u64>().write(7);\nassert_eq!(*x, 7);",
            alloc_uninit, try_alloc_uninit, [T], (), ::core::mem::MaybeUninit<T>,
            |raw| raw.uninit()
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Room for `len` values, to be written later.",
            "let slots = arena.alloc_uninit_slice::<u32>(3);\nslots[0].write(7);\n\
             assert_eq!(slots.len(), 3);",
            alloc_uninit_slice, try_alloc_uninit_slice,
            [T], (len: usize), [::core::mem::MaybeUninit<T>],
            |raw| raw.uninit_slice(len)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "`layout.size()` bytes, aligned as `layout` asks.",
            "let layout = core::alloc::Layout::from_size_align(100, 64).unwrap();\n\
             let bytes = arena.alloc_layout(layout);\n\
             assert_eq!((bytes.len(), bytes.as_ptr().addr() % 64), (100, 0));",
            alloc_layout, try_alloc_layout,
            [], (layout: ::core::alloc::Layout), [::core::mem::MaybeUninit<u8>],
            |raw| raw.layout(layout)
        }

        /// What `make` returns, if it is no error. Where it is one, the bytes that were taken for the
        /// value go back, unless something was allocated behind them.
        ///
        /// # Panics
        ///
        /// Where there is no memory; [`try_alloc_try_with`](Self::try_alloc_try_with) returns an error
        /// instead.
        ///
        /// # Errors
        ///
        /// Whatever `make` returns.
        ///
        /// # Complexity
        ///
        /// As for the other methods.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $begin]
        /// let port = arena.alloc_try_with(|| "8080".parse::<u16>());
        /// assert_eq!(port, Ok(&mut 8080));
        /// assert!(arena.alloc_try_with(|| "http".parse::<u16>()).is_err());
        #[doc = $end]
        /// ```
        #[inline]
        #[track_caller]
        pub fn alloc_try_with<T, E>(
            &self,
            make: impl FnOnce() -> Result<T, E>,
        ) -> Result<&$live mut T, E> {
            let raw = &self.raw;
            let place: Result<_, $crate::advanced::arena::raw::Panic> = raw.value_or(make);
            match place {
                Ok(place) => place,
            }
        }

        /// [`alloc_try_with`](Self::alloc_try_with), or an error.
        ///
        /// # Errors
        ///
        /// [`AllocationError`](crate::core::AllocationError), and then `make` is not called; within
        /// that whatever `make` returns.
        #[inline]
        pub fn try_alloc_try_with<T, E>(
            &self,
            make: impl FnOnce() -> Result<T, E>,
        ) -> Result<Result<&$live mut T, E>, $crate::core::AllocationError> {
            let raw = &self.raw;
            raw.value_or(make)
        }

        /// An empty text that grows in the arena; it takes nothing before there is something in it.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $begin]
        /// let mut text = arena.string();
        /// text.push_str("nebula");
        /// assert_eq!(text.into_str(), "nebula");
        #[doc = $end]
        /// ```
        ///
        /// See [`ArenaString`](crate::advanced::arena::ArenaString).
        #[must_use]
        pub fn string(&self) -> $crate::advanced::arena::ArenaString<'_, $live> {
            // SAFETY: blocks live as long as other values do.
            unsafe { $crate::advanced::arena::ArenaString::new(&self.raw) }
        }
    };

    (
        @one $live:lifetime, $begin:literal, $end:literal, $about:literal, $example:literal,
        $name:ident, $try_name:ident, [$($generics:tt)*], ($($arg:ident: $type:ty),*),
        $result:ty, |$raw:ident| $body:expr
    ) => {
        allocating_methods! {
            @one $live, $begin, $end, $about, $example,
            $name, $try_name, [$($generics)*], ($($arg: $type),*), $result, |$raw| $body,
            $crate::core::AllocationError,
            "[`AllocationError`](crate::core::AllocationError): the budget refuses, the arena's \
             `max_bytes` or the base allocator has no more, or no address space has room. What was \
             passed in is dropped."
        }
    };

    (
        @one $live:lifetime, $begin:literal, $end:literal, $about:literal, $example:literal,
        $name:ident, $try_name:ident, [$($generics:tt)*], ($($arg:ident: $type:ty),*),
        $result:ty, |$raw:ident| $body:expr, $error:ty, $errors:literal
    ) => {
        #[doc = $about]
        #[doc = "\n# Panics\n\nWhere there is no memory; [`"]
        #[doc = stringify!($try_name)]
        #[doc = concat!("`](Self::", stringify!($try_name), ") returns an error instead.")]
        #[doc = "\n# Complexity\n\nA subtraction and a comparison, and the writing. Where the chunk is"]
        #[doc = "full, one allocation and one charge, or the next chunk that was kept."]
        #[doc = concat!("\n# Examples\n\n```\n", $begin, "\n", $example, "\n", $end, "\n```")]
        #[inline]
        #[track_caller]
        pub fn $name<$($generics)*>(&self $(, $arg: $type)*) -> &$live mut $result {
            let $raw = &self.raw;
            let place: Result<_, $crate::advanced::arena::raw::Panic> = $body;
            match place {
                Ok(place) => place,
            }
        }

        #[doc = concat!("[`", stringify!($name), "`](Self::", stringify!($name), "), or an error.")]
        #[doc = concat!("\n# Errors\n\n", $errors)]
        #[inline]
        pub fn $try_name<$($generics)*>(
            &self $(, $arg: $type)*
        ) -> Result<&$live mut $result, $error> {
            let $raw = &self.raw;
            $body
        }
    };
}
pub(super) use allocating_methods;

/// Writes the methods about the bytes that are ahead, likewise.
macro_rules! reserving_methods {
    (begin: $begin:literal, end: $end:literal) => {
        /// Takes a chunk, if there is none with so many bytes free, so that values of at most `bytes`
        /// together, with what their alignment and the arena's own records of them cost, are
        /// allocated without another.
        ///
        /// # Panics
        ///
        /// Where there is no memory; [`try_reserve`](Self::try_reserve) returns an error instead.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $begin]
        /// arena.reserve(8000);
        /// assert!(arena.chunk_capacity() >= 8000);
        /// for i in 0..1000_u64 {
        ///     arena.try_alloc(i).unwrap(); // cannot fail
        /// }
        #[doc = $end]
        /// ```
        #[track_caller]
        pub fn reserve(&self, bytes: usize) {
            let reserved: Result<(), $crate::advanced::arena::raw::Panic> = self.raw.reserve(bytes);
            match reserved {
                Ok(()) => {}
            }
        }

        /// [`reserve`](Self::reserve), or an error.
        ///
        /// # Errors
        ///
        /// [`AllocationError`](crate::core::AllocationError); nothing was taken.
        pub fn try_reserve(&self, bytes: usize) -> Result<(), $crate::core::AllocationError> {
            self.raw.reserve(bytes)
        }

        /// Bytes that are left in the chunk that values are cut from.
        ///
        /// # Complexity
        ///
        /// A subtraction.
        ///
        /// # Examples
        ///
        /// ```
        #[doc = $begin]
        /// assert_eq!(arena.chunk_capacity(), 0, "there is none yet");
        /// arena.alloc(1_u64);
        /// let left = arena.chunk_capacity();
        /// arena.alloc(2_u64);
        /// assert_eq!(arena.chunk_capacity(), left - 8);
        #[doc = $end]
        /// ```
        #[must_use]
        pub fn chunk_capacity(&self) -> usize {
            self.raw.free()
        }
    };
}
pub(super) use reserving_methods;
