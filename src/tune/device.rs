//! Where the data lies: file system, mount options, the disk below, its scheduler and write cache.

use super::{Finding, State, chosen, read};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub fn look(data_dir: &Path) -> Vec<Finding> {
    let Some(dir) = existing(data_dir) else { return Vec::new() };
    let mount = mount_of(&dir);
    let mut findings = vec![file_system(mount.as_ref()), mount_options(mount.as_ref())];
    findings.extend(space(&dir));
    let queue = queue_of(&dir);
    findings.push(scheduler(queue.as_deref()));
    findings.push(write_cache(queue.as_deref()));
    findings.push(rotating(queue.as_deref()));
    findings
}

/// The directory, or the nearest one above it that is there.
fn existing(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    dir.ancestors().find_map(|dir| dir.canonicalize().ok())
}

/// A line of /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    options: String,
    at: String,
}

fn mount_of(dir: &Path) -> Option<Mount> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    find_mount(&read("/proc/self/mountinfo")?, &format!("{major}:{minor}"), dir)
}

/// proc(5): id, parent, device, root, mount point, options, optional fields, a dash, kind, source, options of
/// the file system. Of several mounts of a device, the one nearest above the directory.
fn find_mount(text: &str, device: &str, dir: &Path) -> Option<Mount> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let found = *left.get(2)? == device && dir.starts_with(left.get(4)?);
        let options = format!("{},{}", left.get(5)?, right.get(2)?);
        found.then(|| Mount { kind: right[0].to_owned(), options, at: left[4].to_owned() })
    };
    text.lines().filter_map(parse).max_by_key(|mount| mount.at.len())
}

fn file_system(mount: Option<&Mount>) -> Finding {
    const GOOD: [&str; 2] = ["ext4", "xfs"];
    const LOSES: [&str; 3] = ["tmpfs", "ramfs", "fuse"];
    let finding = Finding::new(
        "file system of the data",
        "ext4 or xfs on a disk of this machine",
        "the log relies on fdatasync; others keep less of that promise, or take longer over it",
    )
    .command("put data_dir on such a file system");
    let Some(mount) = mount else { return finding.unknown("its mount was not found") };
    let loses = LOSES.iter().any(|kind| mount.kind.starts_with(kind)) || mount.kind.starts_with("nfs");
    let state = if loses { State::Wrong } else { State::Worse };
    finding.is(GOOD.contains(&mount.kind.as_str()), state, format!("{} at {}", mount.kind, mount.at))
}

fn mount_options(mount: Option<&Mount>) -> Finding {
    let finding = Finding::new(
        "mount options",
        "noatime or relatime, and no nobarrier",
        "without barriers a power cut takes what was synced; with strict access times every read writes",
    );
    let Some(mount) = mount else { return finding.unknown("its mount was not found") };
    let finding = finding.command(format!("mount -o remount,noatime {}", mount.at));
    let options: Vec<&str> = mount.options.split(',').collect();
    let has = |names: &[&str]| options.iter().any(|option| names.contains(option));
    let dangerous = has(&["nobarrier", "barrier=0"]);
    let state = if dangerous { State::Wrong } else { State::Worse };
    finding.is(!dangerous && has(&["noatime", "relatime"]), state, &mount.options)
}

fn space(dir: &Path) -> Option<Finding> {
    let finding = Finding::new(
        "room on the file system",
        "at least 10 % and 10 GiB free",
        "a full disk refuses writes, and compaction needs room beside what it rewrites",
    );
    let disk = rustix::fs::statvfs(dir).ok()?;
    let (free, total) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    let percent = free as f64 * 100.0 / total.max(1) as f64;
    let found = format!("{:.1} GiB free, {percent:.0} %", free as f64 / (1u64 << 30) as f64);
    Some(finding.is(percent >= 10.0 && free >= 10 << 30, State::Worse, found))
}

/// The request queue of the disk below, in /sys; a partition's is that of its disk.
fn queue_of(dir: &Path) -> Option<PathBuf> {
    let device = fs::metadata(dir).ok()?.dev();
    let block = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)));
    let block = block.canonicalize().ok()?;
    block.ancestors().take(2).map(|at| at.join("queue")).find(|queue| queue.is_dir())
}

/// A file of the disk's queue and what it says; else why there is none.
fn of_queue(queue: Option<&Path>, name: &str) -> Result<(PathBuf, String), &'static str> {
    let file = queue.ok_or("the file system shows no disk (overlay, network or memory)")?.join(name);
    let text = read(&file).ok_or("the kernel does not say")?;
    Ok((file, text))
}

fn scheduler(queue: Option<&Path>) -> Finding {
    let finding = Finding::new(
        "IO scheduler",
        "none, on a disk that does not rotate",
        "NVMe has queues enough; a scheduler adds time and a lock",
    );
    match of_queue(queue, "scheduler") {
        Ok((file, text)) => {
            let good = ["none", ""].contains(&chosen(&text));
            finding.writes(file, "none").is(good, State::Worse, &text)
        }
        Err(why) => finding.unknown(why),
    }
}

fn write_cache(queue: Option<&Path>) -> Finding {
    let finding = Finding::new(
        "write cache",
        "write through: the disk has none that a power cut empties, or protects it",
        "with a volatile cache each fsync waits for the flash: milliseconds under appendfsync always. \
         Data is safe either way",
    )
    .command("use a disk with power-loss protection; do not change the setting by hand");
    match of_queue(queue, "write_cache") {
        Ok((_, text)) => finding.is(text == "write through", State::Worse, &text),
        Err(why) => finding.unknown(why),
    }
}

fn rotating(queue: Option<&Path>) -> Finding {
    let finding = Finding::new("kind of disk", "one that does not rotate", "cold reads are random reads");
    match of_queue(queue, "rotational") {
        Ok((_, text)) => {
            let found =
                if text == "0" { "does not rotate" } else { "says that it rotates (virtual disks may)" };
            finding.is(text == "0", State::Worse, found)
        }
        Err(why) => finding.unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                    30 22 8:1 /srv /data rw,noatime - ext4 /dev/sda1 rw,barrier=0\n\
                    31 22 0:5 / /data/x rw - tmpfs tmpfs rw\n";
        let found = find_mount(text, "8:1", Path::new("/data/y")).unwrap();
        assert_eq!((found.at.as_str(), found.kind.as_str()), ("/data", "ext4"));
        assert_eq!(mount_options(Some(&found)).state, State::Wrong);
        let root = find_mount(text, "8:1", Path::new("/home")).unwrap();
        assert_eq!(root.at, "/");
        assert_eq!(mount_options(Some(&root)).state, State::Good);
        let memory = find_mount(text, "0:5", Path::new("/data/x")).unwrap();
        assert_eq!(file_system(Some(&memory)).state, State::Wrong);
        assert!(find_mount(text, "9:9", Path::new("/")).is_none());
    }
}
