use super::{
    Garbled, Machine, Membership, Mount, Pages, below, kilobytes, machine, membership, mounts,
    number, pages, stall, stat, unescape, v1_limit, v2_limit,
};
use alloc::{format, string::String, vec::Vec};
use proptest::prelude::*;

/// Only few cases under Miri, which is a thousand times slower. Nothing is written to the source tree.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Escapes a field of the mount table as the kernel does: white space and `\` in octal.
fn escape(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in field {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => text.extend(format!("\\{byte:03o}").into_bytes()),
            byte => text.push(*byte),
        }
    }
    text
}

/// Generates absolute paths of any bytes except 0 and some white space.
fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..20).prop_map(|tail| {
        let tail = tail.into_iter().filter(|byte| !matches!(byte, 0 | 11..=13));
        core::iter::once(b'/').chain(tail).collect()
    })
}

#[test]
fn numbers_are_digits_and_fit() {
    assert_eq!(number(b" 18446744073709551615\n"), Ok(u64::MAX));
    for bad in ["", " ", "18446744073709551616", "+1", "-1", "1 2", "0x10", "1k"] {
        assert_eq!(number(bad.as_bytes()), Err(Garbled), "{bad:?}");
    }
}

#[test]
fn only_the_whole_key_is_matched() {
    let text = b"MemTotalHigh: 1 kB\nMemTotal:       2 kB\nMemFree: 3\n";
    assert_eq!(kilobytes(text, "MemTotal"), Ok(2048));
    assert_eq!(kilobytes(text, "MemFree"), Err(Garbled), "no unit");
    assert_eq!(kilobytes(text, "Mem"), Err(Garbled));
    assert_eq!(kilobytes(b"A: 18446744073709551615 kB", "A"), Err(Garbled), "overflow");

    let text = b"inactive_file_x 1\ntotal_inactive_file 2\ninactive_file 3\nbad x\n";
    assert_eq!(stat(text, "inactive_file"), Ok(Some(3)));
    assert_eq!(stat(text, "file"), Ok(None));
    assert_eq!(stat(text, "bad"), Err(Garbled));
}

#[test]
fn pages_of_data_may_be_missing_and_an_empty_address_space_is_none() {
    let all = |data| Ok(Pages { all: 9, resident: 2, data });
    assert_eq!(pages(b"9 2 1 1 0 3 0\n"), all(Some(3)));
    assert_eq!(pages(b"9 2 0 0 0 0 0\n"), all(None), "gVisor");
    assert_eq!(pages(b"9 2\n"), all(None));
    assert_eq!(pages(b"9 2 1 1 0 x 0\n"), all(None));
    for bad in ["0 0 0 0 0 0 0", "9", "", "9 x"] {
        assert_eq!(pages(bad.as_bytes()), Err(Garbled), "{bad:?}");
    }
}

#[test]
fn droppable_memory_is_summed_up_and_never_overstated() {
    let text = "MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 1 kB\nCached: 50 kB\nShmem: 30 kB\n\
        SReclaimable: 4 kB\n";
    let read = |text: &str| machine(text.as_bytes()).unwrap();
    let whole = Machine { total: 100 << 10, available: None, droppable: Some(35 << 10) };
    assert_eq!(read(text), whole);
    assert_eq!(
        read(&text.replace("Shmem", "X")).droppable,
        Some(15 << 10),
        "all of it may be held"
    );
    assert_eq!(read(&text.replace("30 kB", "70 kB")).droppable, Some(15 << 10));
    assert_eq!(read(&text.replace("Buffers", "X")).droppable, Some(34 << 10));
    assert_eq!(read(&text.replace("MemFree", "X")).droppable, None);
    assert_eq!(machine(text.replace("MemTotal", "X").as_bytes()), Err(Garbled));
}

#[test]
fn lost_time_is_read_by_its_kind_and_nothing_else_passes() {
    let text = b"some avg10=1.05 avg60=2.00 avg300=3.00 total=77\nfull avg10=100.00 total=5\n";
    assert_eq!(stall(text, "some"), Ok(Some((105, 77))));
    assert_eq!(stall(text, "full"), Ok(Some((10_000, 5))));
    assert_eq!(stall(b"some avg10=0.00 total=1\n", "full"), Ok(None));
    for bad in
        ["avg10=1.5 total=1", "avg10=100.01 total=1", "avg10=.00 total=1", "avg10=1.00", "total=1"]
    {
        assert_eq!(stall(format!("some {bad}\n").as_bytes(), "some"), Err(Garbled), "{bad}");
    }
}

#[test]
fn unlimited_is_no_limit_whatever_the_page_size() {
    assert_eq!(v2_limit(b"max\n"), Ok(None));
    assert_eq!(v2_limit(b"maximum\n"), Err(Garbled));
    for page in [1u64, 4096, 16_384, 65_536, 1 << 20] {
        let text = format!("{}\n", (i64::MAX as u64) / page * page);
        assert_eq!(v1_limit(text.as_bytes()), Ok(None), "pages of {page}");
    }
    assert_eq!(v1_limit(b"18446744073709551615"), Ok(None));
    assert_eq!(v1_limit(b"9223372036853727231"), Ok(Some(9_223_372_036_853_727_231)));
}

#[test]
fn the_memory_controllers_line_wins_over_the_unified_one() {
    let hybrid = b"12:pids:/p\n4:cpu,memory:/a:b/c\n1:name=memory:/x\n0::/u\n";
    assert_eq!(membership(hybrid), Ok(Some(Membership::V1(b"/a:b/c"))));
    assert_eq!(membership(b"1:name=memory:/x\n0::/u\n"), Ok(Some(Membership::V2(b"/u"))));
    assert_eq!(membership(b"1:name=memory:/x\n2:cpu:/\n"), Ok(None));
    assert_eq!(membership(b""), Ok(None));
    for bad in ["0:/", "x::/", "0::relative", "no colons", "4:cpu,memory:relative", "?\n0::/a"] {
        assert_eq!(membership(bad.as_bytes()), Err(Garbled), "{bad:?}");
    }
    let others = b"x:cpu:odd\n7:name=memory:odd\n0::/a\n";
    assert_eq!(membership(others), Ok(Some(Membership::V2(b"/a"))), "lines that do not count");
}

#[test]
fn mounts_of_other_kinds_are_passed_over_whatever_they_look_like() {
    let table = b"22 27 0:21 / /proc rw,relatime shared:1 master:2 - proc proc rw\n\
        23 27 0:6 / /memory rw - tmpfs memory rw,memory\n\
        35 31 0:32 /docker/a\\040b /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup memory rw,cpu\n\
        37 31 0:34 / /sys/fs/cgroup/uni\\134fied rw shared:9 - cgroup2  rw,nsdelegate\n";
    let mount = |unified, root: &'static [u8], point: &'static [u8]| Mount {
        unified,
        root: root.into(),
        point: point.into(),
    };
    let both = [
        mount(false, b"/docker/a b", b"/sys/fs/cgroup/memory"),
        mount(true, b"/", b"/sys/fs/cgroup/uni\\fied"),
    ];
    assert_eq!(mounts(table), (both.to_vec(), true));
    for bad in ["1 2 0:1 / /x rw tmpfs", "1 2 0:1 - cgroup2 c rw", "1 2 0:1 / x rw - cgroup2 c rw"]
    {
        let spoiled = [bad.as_bytes(), b"\n", table].concat();
        assert_eq!(mounts(&spoiled), (both.to_vec(), false), "{bad:?}");
    }
}

#[test]
fn a_cgroup_is_below_a_mount_only_by_whole_names_and_never_by_climbing() {
    let below = |root: &str, path: &str| {
        below(root.as_bytes(), path.as_bytes()).map(|rest| String::from_utf8(rest.into()).unwrap())
    };
    assert_eq!(below("/", "/").as_deref(), Some(""));
    assert_eq!(below("/", "/a/b").as_deref(), Some("a/b"));
    assert_eq!(below("/a", "/a").as_deref(), Some(""));
    assert_eq!(below("/a", "/a/b").as_deref(), Some("b"));
    assert_eq!(below("/a", "/ab"), None);
    assert_eq!(below("/a/b", "/a"), None);
    assert_eq!(below("/", "/.."), None);
    assert_eq!(below("/", "/../a"), None);
    assert_eq!(below("/..", "/"), None);
    assert_eq!(below("/..", "/../a").as_deref(), Some("a"));
    assert_eq!(below("/", "/..a").as_deref(), Some("..a"));
}

#[test]
fn text_that_is_no_escape_stays_as_it_is() {
    assert_eq!(&*unescape(b"\\040\\377\\134"), b" \xff\\");
    for plain in [&b"\\"[..], b"\\04", b"\\400", b"\\089", b"a\\"] {
        assert_eq!(&*unescape(plain), plain);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_parser_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = number(&text);
        let _ = pages(&text);
        let _ = machine(&text);
        let _ = stall(&text, "some");
        let _ = kilobytes(&text, "VmHWM");
        let _ = stat(&text, "inactive_file");
        let _ = v1_limit(&text);
        let _ = v2_limit(&text);
        let _ = membership(&text);
        let _ = mounts(&text);
        let _ = below(&text, &text);
        let _ = unescape(&text);
    }

    /// Almost valid text gets further into the parsers than random bytes.
    #[test]
    fn no_parser_panics_on_damaged_text(
        text in "([0-9: ,/-]|memory|cgroup2?| - |0::|\\\\[0-7]{1,3}|\n|kB|max){0,40}",
    ) {
        let _ = membership(text.as_bytes());
        let _ = mounts(text.as_bytes());
        let _ = kilobytes(text.as_bytes(), "memory");
        let _ = machine(text.replace("memory", "MemTotal:").as_bytes());
        let _ = pages(text.as_bytes());
        let _ = stat(text.as_bytes(), "memory");
    }

    #[test]
    fn written_numbers_are_read_back(value: u64, other in "[A-Za-z_]{1,12}") {
        prop_assert_eq!(number(format!("{value}\n").as_bytes()), Ok(value));
        prop_assert_eq!(v2_limit(format!("{value}\n").as_bytes()), Ok(Some(value)));
        let line = format!("9 {value} 1 1 0 4 0\n");
        let data = Some(4);
        prop_assert_eq!(pages(line.as_bytes()), Ok(Pages { all: 9, resident: value, data }));
        prop_assert_eq!(
            stat(format!("{other}2 7\nkey {value}\n").as_bytes(), "key"),
            Ok(Some(value)),
        );
        let kilo = value >> 10;
        prop_assert_eq!(
            kilobytes(format!("{other}2:\t1 kB\nKey:\t{kilo:>8} kB\n").as_bytes(), "Key"),
            Ok(kilo << 10),
        );
    }

    #[test]
    fn a_written_mount_is_read(unified: bool, root in path(), point in path()) {
        let mut line = b"41 31 0:38 ".to_vec();
        line.extend(escape(&root));
        line.push(b' ');
        line.extend(escape(&point));
        line.extend_from_slice(b" rw shared:4 - ");
        line.extend_from_slice(if unified { b"cgroup2 none rw\n" } else { b"cgroup c rw,memory\n" });
        let expected = Mount { unified, root: root.into(), point: point.into() };
        prop_assert_eq!(mounts(&line), ([expected].into(), true));
    }

    #[test]
    fn a_written_membership_is_read(name in "[a-z:./ -]{0,20}", id in 1u32..100) {
        let path = format!("/{name}");
        let v2 = format!("{id}:cpu,io:/\n0::{path}\n");
        prop_assert_eq!(membership(v2.as_bytes()), Ok(Some(Membership::V2(path.as_bytes()))));
        let v1 = format!("0::/u\n{id}:cpu,memory:{path}\n");
        prop_assert_eq!(membership(v1.as_bytes()), Ok(Some(Membership::V1(path.as_bytes()))));
    }
}
