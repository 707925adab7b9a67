//! Figures of the running kernel. Those of files that were made for a test are tested beside the module, and in
//! `sensors.rs`.
//!
//! Miri is excluded: it has no such files and keeps programs away from the machine's.
#![cfg(all(feature = "std", target_os = "linux", not(miri)))]

use nebula_memory::syscalls::info;

const MIB: u64 = 1 << 20;

#[test]
fn the_limits_of_the_process_are_read() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut address = getrlimit(Resource::As);
    // Leaves room for every other test of this program.
    address.current = Some(1 << 46);
    setrlimit(Resource::As, address).unwrap();
    let process = info::process_memory().unwrap();
    assert_eq!(process.address_limit, Some(1 << 46));
    assert_eq!(process.data_limit, getrlimit(Resource::Data).current);
    assert!(process.address_space >= process.data && process.data > 0);
}

#[test]
fn the_running_kernel_answers() {
    assert!(info::page_size().is_power_of_two());
    let machine = info::machine_memory().unwrap();
    let process = info::process_memory().unwrap();
    assert!(machine.available <= machine.total);
    assert!(process.resident > 0 && process.peak_resident >= process.resident);
    assert!(process.resident < machine.total);
    let cgroup = info::cgroup_memory().unwrap();
    assert_eq!(info::cgroup_events().unwrap().is_some(), cgroup.is_some());
    let bound = info::memory_bound().unwrap();
    assert!(bound <= machine.total);
    if let Some(cgroup) = cgroup {
        assert!(cgroup.path.starts_with('/'));
        assert_eq!(cgroup.headroom().is_some(), cgroup.limit.is_some());
        assert!(cgroup.limit.is_none_or(|limit| bound <= limit));
    }
    for stall in [info::machine_stall().unwrap(), info::cgroup_stall().unwrap()] {
        assert!(stall.is_none_or(|stall| stall.some_avg10 <= 10_000));
    }
}

#[test]
fn resident_memory_follows_touched_pages() {
    const BLOCK: usize = 64 << 20;
    let before = info::process_memory().unwrap().resident;
    let block = std::hint::black_box(vec![1u8; BLOCK]);
    let during = info::process_memory().unwrap();
    assert!(during.resident >= before + 32 * MIB, "{before} then {during:?}");
    drop(block);
    assert!(info::process_memory().unwrap().peak_resident >= before + 32 * MIB);
}
