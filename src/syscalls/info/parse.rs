//! Parsers for the kernel's text. They open no files, have no unsafe code and never panic.
//!
//! The formats are documented in `proc(5)`, `cgroups(7)` and the kernel's `cgroup-v1/memory.rst` and `cgroup-v2.rst`.
#![forbid(unsafe_code)]

use alloc::{borrow::Cow, vec::Vec};

/// The error for text that does not match the kernel's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

/// The value that version 1 shows for "no limit": the largest `long`, rounded down to a page. Here it is rounded down
/// to 1 MiB, the largest size of a page. No machine has enough memory for the difference to matter.
const V1_UNLIMITED: u64 = (u64::MAX >> 1) & !((1 << 20) - 1);

/// Parses a decimal number, with only white space around it.
pub(super) fn number(text: &[u8]) -> Result<u64, Garbled> {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return Err(Garbled);
    }
    digits
        .iter()
        .try_fold(0u64, |sum, digit| match digit {
            b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
        .ok_or(Garbled)
}

/// The used fields of `/proc/<pid>/statm`, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// The address space. Never 0: a process that reads the file has one.
    pub(super) all: u64,
    pub(super) resident: u64,
    /// Private writable mappings and the stack. `None` if the kernel does not count them: gVisor writes 0.
    pub(super) data: Option<u64>,
}

/// Parses `/proc/<pid>/statm`: the fields 1, 2 and 6.
pub(super) fn pages(statm: &[u8]) -> Result<Pages, Garbled> {
    let mut fields = words(statm).map(number);
    let all = fields.next().ok_or(Garbled)??;
    let resident = fields.next().ok_or(Garbled)??;
    let data = fields.nth(3).and_then(Result::ok).filter(|&pages| pages > 0);
    if all == 0 {
        return Err(Garbled);
    }
    Ok(Pages { all, resident, data })
}

/// The used lines of `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) total: u64,
    /// `MemAvailable`, which exists since Linux 3.14.
    pub(super) available: Option<u64>,
    /// A substitute for `MemAvailable`: free memory and the caches that the kernel can drop.
    pub(super) droppable: Option<u64>,
}

/// Parses `/proc/meminfo`. Only `MemTotal` is required.
pub(super) fn machine(meminfo: &[u8]) -> Result<Machine, Garbled> {
    let line = |key| kilobytes(meminfo, key).ok();
    let droppable = line("MemFree").map(|free| {
        // `Cached` includes shared memory, which cannot be dropped. If the kernel does not report the size of shared
        // memory, the whole page cache is left out.
        let cached = line("Cached").zip(line("Shmem")).map(|(all, held)| all.saturating_sub(held));
        [line("Buffers"), cached, line("SReclaimable")]
            .into_iter()
            .flatten()
            .fold(free, u64::saturating_add)
    });
    Ok(Machine {
        total: kilobytes(meminfo, "MemTotal")?,
        available: line("MemAvailable"),
        droppable,
    })
}

/// Returns the bytes of the line `key:   123 kB` in `/proc/meminfo` or `/proc/<pid>/status`.
pub(super) fn kilobytes(text: &[u8], key: &str) -> Result<u64, Garbled> {
    let value = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b":"))
        .ok_or(Garbled)?;
    let amount = value.trim_ascii().strip_suffix(b" kB").ok_or(Garbled)?;
    number(amount)?.checked_mul(1024).ok_or(Garbled)
}

/// Returns the value of the line `key 123` in a `memory.stat`; `None` if the kernel has no such line.
pub(super) fn stat(text: &[u8], key: &str) -> Result<Option<u64>, Garbled> {
    text.split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b" "))
        .map(number)
        .transpose()
}

/// Returns the value of the required line `key 123`.
pub(super) fn count(text: &[u8], key: &str) -> Result<u64, Garbled> {
    stat(text, key)?.ok_or(Garbled)
}

/// Parses the line `kind avg10=1.23 avg60=… avg300=… total=456` of a pressure file. Returns the average of the last
/// ten seconds in hundredths of a percent, and the total in microseconds; `None` if there is no such line.
pub(super) fn stall(text: &[u8], kind: &str) -> Result<Option<(u16, u64)>, Garbled> {
    let Some(line) = lines(text).find(|line| words(line).next() == Some(kind.as_bytes())) else {
        return Ok(None);
    };
    let field =
        |key: &str| words(line).find_map(|word| word.strip_prefix(key.as_bytes())).ok_or(Garbled);
    Ok(Some((hundredths(field("avg10=")?)?, number(field("total=")?)?)))
}

/// Parses a percentage with two decimal places. Returns hundredths of a percent.
fn hundredths(text: &[u8]) -> Result<u16, Garbled> {
    let (whole, [b'.', tens, ones]) = text.split_last_chunk::<3>().ok_or(Garbled)? else {
        return Err(Garbled);
    };
    let hundredths =
        number(&[*tens, *ones])?.checked_add(number(whole)?.checked_mul(100).ok_or(Garbled)?);
    match hundredths {
        Some(hundredths @ 0..=10_000) => u16::try_from(hundredths).map_err(|_| Garbled),
        _ => Err(Garbled),
    }
}

/// Parses a limit of version 2: a number of bytes or `max`.
pub(super) fn v2_limit(text: &[u8]) -> Result<Option<u64>, Garbled> {
    match text.trim_ascii() {
        b"max" => Ok(None),
        bytes => number(bytes).map(Some),
    }
}

/// Parses a limit of version 1: a number of bytes, or a huge number for "no limit".
pub(super) fn v1_limit(text: &[u8]) -> Result<Option<u64>, Garbled> {
    number(text).map(bounded)
}

/// Returns `None` for the number that version 1 shows for "no limit".
pub(super) fn bounded(limit: u64) -> Option<u64> {
    (limit < V1_UNLIMITED).then_some(limit)
}

/// The process's cgroup in the hierarchy that may account its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership<'a> {
    /// The path in the version 1 hierarchy of the memory controller.
    V1(&'a [u8]),
    /// The path in the version 2 hierarchy.
    V2(&'a [u8]),
}

/// Finds the line of `/proc/<pid>/cgroup` for the memory controller. If version 1 has the controller, the line is
/// that of version 1; otherwise it is that of version 2.
///
/// Lines of other hierarchies are ignored, whatever their text. If a line that may be the right one is not
/// understood, the result is an error.
pub(super) fn membership(text: &[u8]) -> Result<Option<Membership<'_>>, Garbled> {
    let (mut unified, mut is_clear) = (None, true);
    for line in lines(text) {
        // The path is the last field, and may contain colons.
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            is_clear = false;
            continue;
        };
        let is_memory = controllers.split(|byte| *byte == b',').any(|name| name == b"memory");
        if !is_memory && !controllers.is_empty() {
            continue;
        }
        match (number(id), path.starts_with(b"/")) {
            (Ok(_), true) if is_memory => return Ok(Some(Membership::V1(path))),
            (Ok(0), true) => unified = Some(Membership::V2(path)),
            _ => is_clear = false,
        }
    }
    if is_clear { Ok(unified) } else { Err(Garbled) }
}

/// A mounted hierarchy that may account memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount<'a> {
    /// Whether this is the version 2 hierarchy. Otherwise it is the version 1 hierarchy of the memory controller.
    pub(super) unified: bool,
    /// The cgroup at the mount point: `/`, or the container's own.
    pub(super) root: Cow<'a, [u8]>,
    /// The mount point.
    pub(super) point: Cow<'a, [u8]>,
}

/// Finds the mounts of `/proc/<pid>/mountinfo` that may account memory, in the order of the file.
///
/// Skips lines that are not understood. The second result is `true` if no line was skipped.
pub(super) fn mounts(text: &[u8]) -> (Vec<Mount<'_>>, bool) {
    let mut found = Vec::new();
    let mut is_clear = true;
    for line in lines(text) {
        match mount(line) {
            Ok(mount) => found.extend(mount),
            Err(Garbled) => is_clear = false,
        }
    }
    (found, is_clear)
}

/// Parses one line of the table; `None` for a mount of another kind.
fn mount(line: &[u8]) -> Result<Option<Mount<'_>>, Garbled> {
    // id parent device root point options [tag …] - type source super-options
    // A space inside a field is written as an octal escape, so " - " is the separator.
    let at = line.windows(3).position(|window| window == b" - ").ok_or(Garbled)?;
    let (front, back) = line.split_at(at);
    // The source may be empty, so the super options are counted from the end of the line: they are the last word.
    let mut back = words(back).skip(1);
    let unified = match back.next().ok_or(Garbled)? {
        b"cgroup2" => true,
        b"cgroup" => false,
        _ => return Ok(None),
    };
    let options = back.last().unwrap_or_default();
    if !unified && options.split(|byte| *byte == b',').all(|option| option != b"memory") {
        return Ok(None);
    }
    let mut front = words(front).skip(3);
    let (root, point) = front.next().zip(front.next()).ok_or(Garbled)?;
    if !(root.starts_with(b"/") && point.starts_with(b"/")) {
        return Err(Garbled);
    }
    Ok(Some(Mount { unified, root: unescape(root), point: unescape(point) }))
}

/// Returns the rest of the cgroup `path` below a mount whose root is the cgroup `root`, without a leading slash;
/// `None` if `path` is not below `root`.
///
/// Inside a cgroup namespace the kernel writes `/..` in paths and roots for cgroups outside of it. Such a rest leads
/// out of the mount, so the result is `None`.
pub(super) fn below<'a>(root: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = match path.strip_prefix(root)? {
        [] => return Some(&[]),
        [b'/', rest @ ..] => rest,
        _ => return None,
    };
    rest.split(|byte| *byte == b'/').all(|name| name != b"..").then_some(rest)
}

/// Replaces the kernel's escapes, `\` and three octal digits. All other bytes stay the same.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match rest {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if *byte == b'\\' => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = tail;
            }
            _ => plain.push(*byte),
        }
    }
    Cow::Owned(plain)
}

/// Returns the lines that are not empty.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Returns the words between white space.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests;
