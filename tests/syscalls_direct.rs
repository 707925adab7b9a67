//! Mappings: their contents, their bounds, and the pages that the kernel takes back.
#![cfg(feature = "std")]

use nebula_memory::syscalls::{
    direct::{Advice, Mapping},
    info::page_size,
};

const ERRNO_INVALID: i32 = 22;

fn fill(mapping: &Mapping, byte: u8) {
    // SAFETY: the tests call it on mappings that are readable and writable as a whole.
    unsafe { mapping.as_ptr().write_bytes(byte, mapping.len()) };
}

fn read(mapping: &Mapping, at: usize) -> u8 {
    assert!(at < mapping.len());
    // SAFETY: the offset lies within the mapping.
    let byte = unsafe { mapping.as_ptr().add(at) };
    // SAFETY: the tests call it on pages that are readable.
    unsafe { byte.read() }
}

#[test]
fn new_pages_are_zero_and_whole() {
    let mapping = Mapping::new(page_size() + 1).unwrap();
    assert_eq!(mapping.len(), 2 * page_size());
    assert_eq!(mapping.as_ptr().addr().get() % page_size(), 0);
    assert!(!mapping.is_empty());
    assert!((0..mapping.len()).all(|at| read(&mapping, at) == 0));
    fill(&mapping, 7);
    assert_eq!(read(&mapping, mapping.len() - 1), 7);
}

#[test]
fn an_impossible_size_or_alignment_of_a_mapping_is_refused() {
    for len in [0, usize::MAX, usize::MAX - page_size(), isize::MAX.unsigned_abs() + 1] {
        let error = Mapping::new(len).unwrap_err();
        assert_eq!((error.call, error.bytes, error.errno), ("map", Some(len), ERRNO_INVALID));
    }
    let error = Mapping::options().guards(true).map(isize::MAX.unsigned_abs()).unwrap_err();
    assert_eq!(error.errno, ERRNO_INVALID);
    let error = Mapping::options().align(3).map(1).unwrap_err();
    assert_eq!(error.to_string(), "align to what is no power of two 3 B failed: errno 22");
    let error = Mapping::options().align(1 << (usize::BITS - 1)).map(1).unwrap_err();
    assert_eq!(error.errno, ERRNO_INVALID);
}

#[test]
fn ranges_are_whole_pages_within_the_mapping() {
    let page = page_size();
    let mut mapping = Mapping::new(4 * page).unwrap();
    assert_eq!(mapping.commit(..), Ok(()));
    assert_eq!(mapping.commit(page..=2 * page - 1), Ok(()));
    assert_eq!(mapping.commit(page..page), Ok(()), "no pages are no call");
    for (start, end) in [(0, 5 * page), (1, page), (0, page + 1), (2 * page, page)] {
        assert_eq!(mapping.commit(start..end).unwrap_err().errno, ERRNO_INVALID, "{start}..{end}");
    }
    assert_eq!(mapping.commit(..=usize::MAX).unwrap_err().errno, ERRNO_INVALID);
}

#[test]
fn aligned_guarded_and_populated_mappings_hold_their_bytes() {
    for align in [1, page_size(), 1 << 16, 1 << 21] {
        for guards in [false, true] {
            let mapping = Mapping::options()
                .align(align)
                .guards(guards)
                .populated(true)
                .map(3 * page_size())
                .unwrap();
            assert_eq!(mapping.as_ptr().addr().get() % align, 0);
            assert_eq!(mapping.len(), 3 * page_size());
            fill(&mapping, 1);
            assert_eq!(read(&mapping, mapping.len() - 1), 1);
        }
    }
}

#[test]
fn decommitted_pages_come_back_as_zeroes_and_their_neighbours_stay() {
    let page = page_size();
    let mut mapping = Mapping::reserve(3 * page).unwrap();
    mapping.commit(..).unwrap();
    fill(&mapping, 9);
    mapping.decommit(page..2 * page).unwrap();
    mapping.commit(page..2 * page).unwrap();
    assert_eq!([0, page, 2 * page].map(|at| read(&mapping, at)), [9, 0, 9]);
    mapping.commit(..).unwrap();
    assert_eq!(read(&mapping, 0), 9, "what is committed keeps its contents");
}

#[test]
fn a_mapping_may_change_threads() {
    let mapping = Mapping::new(1).unwrap();
    fill(&mapping, 3);
    let mapping = std::thread::spawn(move || {
        assert_eq!(read(&mapping, 0), 3);
        mapping
    });
    drop(mapping.join().unwrap());
}

#[test]
fn pages_given_back_read_as_zero() {
    let mut mapping = Mapping::new(2 * page_size()).unwrap();
    fill(&mapping, 9);
    match mapping.advise(..page_size(), Advice::DontNeed) {
        Ok(()) => {
            assert_eq!([0, page_size()].map(|at| read(&mapping, at)), [0, 9]);
        }
        Err(error) => assert!(error.is_unsupported() && cfg!(not(target_os = "linux"))),
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use super::*;
    use nebula_memory::syscalls::{direct::Protection, info::process_memory};

    /// Returns the address's permissions in `/proc/self/maps`, or nothing.
    fn permissions(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let [start, end] = [start, end].map(|hex| usize::from_str_radix(hex, 16).unwrap());
            (start..end).contains(&address).then(|| rest[..3].to_owned())
        })
    }

    #[test]
    fn the_kernel_knows_the_permissions_of_each_page() {
        let page = page_size();
        let mut mapping = Mapping::options().guards(true).map(3 * page).unwrap();
        let start = mapping.as_ptr().addr().get();
        assert_eq!(permissions(start - 1).unwrap(), "---");
        assert_eq!(permissions(start).unwrap(), "rw-");
        assert_eq!(permissions(start + 3 * page).unwrap(), "---");

        mapping.protect(..page, Protection::Read).unwrap();
        mapping.protect(2 * page.., Protection::None).unwrap();
        assert_eq!(permissions(start).unwrap(), "r--");
        assert_eq!(permissions(start + page).unwrap(), "rw-");
        assert_eq!(permissions(start + 2 * page).unwrap(), "---");

        let mut mapping = Mapping::reserve(2 * page).unwrap();
        let start = mapping.as_ptr().addr().get();
        assert_eq!(permissions(start).unwrap(), "---");
        mapping.commit(page..).unwrap();
        assert_eq!(permissions(start).unwrap(), "---");
        assert_eq!(permissions(start + page).unwrap(), "rw-");
        mapping.decommit(..).unwrap();
        assert_eq!(permissions(start + page).unwrap(), "---");
    }

    #[test]
    fn a_resize_keeps_the_bytes_within_both_sizes() {
        let page = page_size();
        let mut mapping = Mapping::new(2 * page).unwrap();
        fill(&mapping, 5);
        mapping.resize(1000 * page + 1).unwrap();
        assert_eq!(mapping.len(), 1001 * page);
        assert_eq!([0, 2 * page - 1, 2 * page].map(|at| read(&mapping, at)), [5, 5, 0]);
        fill(&mapping, 6);

        let start = mapping.as_ptr();
        mapping.resize_in_place(1).unwrap();
        assert_eq!((mapping.len(), mapping.as_ptr()), (page, start));
        assert_eq!(read(&mapping, page - 1), 6);
        assert_eq!(permissions(start.addr().get() + 1000 * page).filter(|p| p == "rw-"), None);

        for len in [0, usize::MAX] {
            let error = mapping.resize(len).unwrap_err();
            assert_eq!((error.call, error.bytes), ("resize", Some(len)));
            assert_eq!(mapping.len(), page);
        }
        let error = mapping.resize(1 << 46).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(read(&mapping, 0), 6, "as it was");
    }

    #[test]
    fn a_mapping_with_guards_or_a_neighbour_does_not_grow() {
        let page = page_size();
        let mut mapping = Mapping::options().guards(true).map(page).unwrap();
        let error = mapping.resize(2 * page).unwrap_err();
        assert!(error.is_unsupported());

        // The upper of two adjacent pages keeps the lower from growing.
        let mut pages: Vec<_> = (0..64).map(|_| Mapping::new(page).unwrap()).collect();
        pages.sort_by_key(Mapping::as_ptr);
        let below = pages
            .windows(2)
            .position(|two| two[0].as_ptr().addr().get() + page == two[1].as_ptr().addr().get());
        let below = &mut pages[below.expect("64 pages in a row have neighbours")];
        let error = below.resize_in_place(2 * page).unwrap_err();
        assert_eq!((error.call, error.errno), ("resize", 12));
        assert_eq!(below.len(), page);
    }

    #[test]
    fn every_advice_is_passed_on() {
        let mut mapping = Mapping::new(4 << 20).unwrap();
        for advice in [
            Advice::Normal,
            Advice::Sequential,
            Advice::Random,
            Advice::WillNeed,
            Advice::DontNeed,
            Advice::Free,
            Advice::DontDump,
            Advice::DoDump,
        ] {
            assert_eq!(mapping.advise(.., advice), Ok(()));
        }
        // Only newer kernels, or kernels built with huge pages, accept these.
        for advice in [
            Advice::HugePage,
            Advice::NoHugePage,
            Advice::PopulateRead,
            Advice::PopulateWrite,
            Advice::Cold,
            Advice::PageOut,
        ] {
            if let Err(error) = mapping.advise(.., advice) {
                assert_eq!(error.errno, ERRNO_INVALID, "{error}");
            }
        }
    }

    /// Other tests map a few megabytes at the same time: the differences are far larger.
    #[test]
    fn resident_memory_follows() {
        const BYTES: usize = 256 << 20;
        let resident = || usize::try_from(process_memory().unwrap().resident).unwrap();
        let before = resident();
        let mut mapping = Mapping::new(BYTES).unwrap();
        assert!(resident() < before + BYTES / 2, "nothing before it is touched");
        fill(&mapping, 1);
        assert!(resident() > before + BYTES / 2);
        mapping.advise(.., Advice::DontNeed).unwrap();
        assert!(resident() < before + BYTES / 2);
        let populated = Mapping::options().populated(true).map(BYTES).unwrap();
        assert!(resident() > before + BYTES / 2);
        drop(populated);
        assert!(resident() < before + BYTES / 2);
    }

    #[test]
    fn a_lock_beyond_the_limit_is_an_error_and_one_page_is_not() {
        let mut mapping = Mapping::new(page_size()).unwrap();
        match mapping.lock(..) {
            Ok(()) => assert_eq!(mapping.unlock(..), Ok(())),
            Err(error) => assert_eq!((error.call, error.bytes), ("lock", Some(page_size()))),
        }
    }
}
