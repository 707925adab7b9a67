//! The methods that allocate and reserve, written once for all kinds of arena. A file that expands
//! these macros imports `Values` and `Formatted`.

/// Writes the allocating methods over `self.raw`. `$begin` and `$end` are the lines around each
/// example, in which the methods are called on `arena`.
macro_rules! allocating_methods {
    (live: $live:lifetime, begin: $begin:literal, end: $end:literal) => {
        allocating_methods! {
            @one $live, $begin, $end,
            "Moves `value` into the arena, which does not drop it.\n\nThe value may be built on \
             the stack and then moved; [`alloc_with`](Self::alloc_with) builds it in place.",
            "let x = arena.alloc(7_u64);\n*x += 1;\nassert_eq!(*x, 8);",
            alloc, try_alloc, [T], (value: T), T,
            |raw| raw.value(|| value)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates memory, calls `make` and builds its result in place. If `make` panics the \
             memory is freed, unless `make` has allocated in the arena itself. The arena does not \
             drop the value.",
            "let page = arena.alloc_with(|| [0_u8; 4096]);\nassert_eq!(page.len(), 4096);",
            alloc_with, try_alloc_with, [T], (make: impl FnOnce() -> T), T,
            |raw| raw.value(make)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Copies `text` into the arena.",
            "let name = arena.alloc_str(\"nebula\");\nname.make_ascii_uppercase();\n\
             assert_eq!(name, \"NEBULA\");",
            alloc_str, try_alloc_str, [], (text: &str), str,
            |raw| raw.str(text)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Formats `text` into the arena, like `format!` with the same arguments.\n\nThe text \
             may be moved while it grows. Bytes that it does not need in the end become free. Like \
             `format!`, this also panics if an implementation of a formatting trait returns an \
             error of its own.",
            "let path = arena.alloc_fmt(format_args!(\"{}/{}.rs\", \"src\", \"lib\"));\n\
             assert_eq!(path, \"src/lib.rs\");",
            alloc_fmt, try_alloc_fmt, [], (text: ::core::fmt::Arguments<'_>), str,
            |raw| raw.format(text),
            panics: "Panics if an implementation of a formatting trait returns an error of its own."
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Collects all values of an iterator into a slice, whatever their number.\n\nThe slice \
             may be moved while it grows, and the iterator may allocate in the arena. Bytes that \
             the slice does not need in the end become free. If the iterator panics, the values so \
             far are dropped. If the length is known, \
             [`alloc_slice_fill_iter`](Self::alloc_slice_fill_iter) takes the memory at once.",
            "let words = arena.alloc_iter(\"one two three\".split(' '));\n\
             assert_eq!(words, [\"one\", \"two\", \"three\"]);",
            alloc_iter, try_alloc_iter, [I: IntoIterator], (values: I), [I::Item],
            |raw| raw.collect(values)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Copies `values` into the arena, byte by byte.",
            "let values = arena.alloc_slice_copy(&[3, 1, 2]);\nvalues.sort();\n\
             assert_eq!(values, [1, 2, 3]);",
            alloc_slice_copy, try_alloc_slice_copy, [T: Copy], (values: &[T]), [T],
            |raw| raw.copy(values)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Clones `values` into the arena. If a clone panics, the clones before it are dropped.",
            "let names = arena.alloc_slice_clone(&[Some(1), None]);\n\
             assert_eq!(names, [Some(1), None]);",
            alloc_slice_clone, try_alloc_slice_clone, [T: Clone], (values: &[T]), [T],
            |raw| raw.fill_iter(values.iter().cloned())
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates a slice of `len` clones of `value`. If a clone panics, the clones before it \
             are dropped.",
            "let zeroes = arena.alloc_slice_fill(3, 0);\nassert_eq!(zeroes, [0, 0, 0]);",
            alloc_slice_fill, try_alloc_slice_fill, [T: Clone], (len: usize, value: T), [T],
            |raw| raw.fill_with(len, |_| value.clone())
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates a slice of `len` default values. If `T::default` panics, the values before \
             are dropped.",
            "let counts = arena.alloc_slice_fill_default::<u32>(2);\nassert_eq!(counts, [0, 0]);",
            alloc_slice_fill_default, try_alloc_slice_fill_default, [T: Default], (len: usize), [T],
            |raw| raw.fill_with(len, |_| T::default())
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates a slice of `len` values, `make(0)` to `make(len - 1)`. If `make` panics, \
             the values before are dropped.",
            "let squares = arena.alloc_slice_fill_with(4, |i| i * i);\n\
             assert_eq!(squares, [0, 1, 4, 9]);",
            alloc_slice_fill_with, try_alloc_slice_fill_with,
            [T], (len: usize, make: impl FnMut(usize) -> T), [T],
            |raw| raw.fill_with(len, make)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Collects the values of an iterator of known length into a slice. The slice is shorter \
             if the iterator yields fewer values than promised, and never longer. If the iterator \
             panics, the values before are dropped.",
            "let doubled = arena.alloc_slice_fill_iter([1, 2].iter().map(|x| x * 2));\n\
             assert_eq!(doubled, [2, 4]);",
            alloc_slice_fill_iter, try_alloc_slice_fill_iter,
            [I: IntoIterator<IntoIter: ExactSizeIterator>], (values: I), [I::Item],
            |raw| raw.fill_iter(values)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates memory for a value, to be written later.",
            "let x = arena.alloc_uninit::<u64>().write(7);\nassert_eq!(*x, 7);",
            alloc_uninit, try_alloc_uninit, [T], (), ::core::mem::MaybeUninit<T>,
            |raw| raw.uninit()
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates memory for `len` values, to be written later.",
            "let slots = arena.alloc_uninit_slice::<u32>(3);\nslots[0].write(7);\n\
             assert_eq!(slots.len(), 3);",
            alloc_uninit_slice, try_alloc_uninit_slice,
            [T], (len: usize), [::core::mem::MaybeUninit<T>],
            |raw| raw.uninit_slice(len)
        }
        allocating_methods! {
            @one $live, $begin, $end,
            "Allocates `layout.size()` bytes with the alignment of `layout`.",
            "let layout = core::alloc::Layout::from_size_align(100, 64).unwrap();\n\
             let bytes = arena.alloc_layout(layout);\n\
             assert_eq!((bytes.len(), bytes.as_ptr().addr() % 64), (100, 0));",
            alloc_layout, try_alloc_layout,
            [], (layout: ::core::alloc::Layout), [::core::mem::MaybeUninit<u8>],
            |raw| raw.layout(layout)
        }

        /// Allocates memory, calls `make` and builds its result in place. If `make` returns an
        /// error, the memory is freed, unless `make` has allocated in the arena itself.
        ///
        /// # Panics
        ///
        /// Panics if the allocation fails; [`try_alloc_try_with`](Self::try_alloc_try_with) returns
        /// an error instead.
        ///
        /// # Errors
        ///
        /// Returns the error that `make` returns.
        ///
        /// # Complexity
        ///
        /// The same as for the other methods.
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

        /// Like [`alloc_try_with`](Self::alloc_try_with), but returns an error instead of
        /// panicking.
        ///
        /// # Errors
        ///
        /// The outer error is [`AllocationError`](crate::core::AllocationError); `make` is not
        /// called then. The inner error is the one that `make` returns.
        #[inline]
        pub fn try_alloc_try_with<T, E>(
            &self,
            make: impl FnOnce() -> Result<T, E>,
        ) -> Result<Result<&$live mut T, E>, $crate::core::AllocationError> {
            let raw = &self.raw;
            raw.value_or(make)
        }

        /// Creates an empty [`ArenaString`](crate::advanced::arena::ArenaString): a text that grows
        /// in the arena. It takes no memory before text is appended.
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
        #[must_use]
        pub fn string(&self) -> $crate::advanced::arena::ArenaString<'_, $live> {
            // SAFETY: blocks live as long as other values of the arena.
            unsafe { $crate::advanced::arena::ArenaString::new(&self.raw) }
        }
    };

    (
        @one $live:lifetime, $begin:literal, $end:literal, $about:literal, $example:literal,
        $name:ident, $try_name:ident, [$($generics:tt)*], ($($arg:ident: $type:ty),*),
        $result:ty, |$raw:ident| $body:expr $(, panics: $panics:literal)?
    ) => {
        #[doc = $about]
        #[doc = "\n# Panics\n\nPanics if the allocation fails; [`"]
        #[doc = stringify!($try_name)]
        #[doc = concat!("`](Self::", stringify!($try_name), ") returns an error instead.")]
        #[doc = "\n# Complexity\n\nAn addition, a comparison and the write. When the chunk is full: one"]
        #[doc = "allocation and one charge, or a move to a chunk that was kept."]
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

        #[doc = concat!(
            "Like [`", stringify!($name), "`](Self::", stringify!($name),
            "), but returns an error instead of panicking."
        )]
        $(#[doc = concat!("\n# Panics\n\n", $panics)])?
        #[doc = "\n# Errors\n\n[`AllocationError`](crate::core::AllocationError): the budget refuses, the"]
        #[doc = "arena's `max_bytes` is reached, the base allocator has no more memory, or the size"]
        #[doc = "exceeds any address space. The arguments are dropped."]
        #[inline]
        pub fn $try_name<$($generics)*>(
            &self $(, $arg: $type)*
        ) -> Result<&$live mut $result, $crate::core::AllocationError> {
            let $raw = &self.raw;
            $body
        }
    };
}
pub(in super::super) use allocating_methods;

/// Writes the reserving methods in the same way.
macro_rules! reserving_methods {
    (begin: $begin:literal, end: $end:literal) => {
        /// Reserves memory for values of at most `bytes` together, including the padding for their
        /// alignment and the arena's own records of them. Such values are then allocated without
        /// another chunk. A chunk is taken if the current one has fewer bytes free.
        ///
        /// # Panics
        ///
        /// Panics if the allocation fails; [`try_reserve`](Self::try_reserve) returns an error
        /// instead.
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

        /// Like [`reserve`](Self::reserve), but returns an error instead of panicking.
        ///
        /// # Errors
        ///
        /// [`AllocationError`](crate::core::AllocationError). Nothing was taken then.
        pub fn try_reserve(&self, bytes: usize) -> Result<(), $crate::core::AllocationError> {
            self.raw.reserve(bytes)
        }

        /// Returns the free bytes of the chunk that values are allocated from.
        ///
        /// # Complexity
        ///
        /// Constant: a subtraction.
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
pub(in super::super) use reserving_methods;
