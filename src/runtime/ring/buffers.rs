//! The receive buffers: memory the kernel fills, lent to the owner of the ring until recycled.
//!
//! A buffer is the kernel's (it is in the provided-buffer ring) or the owner's (there is one `RecvBuf` for
//! it), never both: all the safety of this file rests on that. Must not know sockets.

use super::kernel::{BUFFER_GROUP, Kernel};
use io_uring::types::BufRingEntry;
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// Received bytes, until given back with `SocketRing::recycle`. One that is dropped instead is lost to its
/// ring for good.
#[must_use = "a receive buffer must be recycled"]
#[derive(Debug)]
pub struct RecvBuf {
    ring: u32,
    buffer: u16,
    len: u32,
    /// A ring and its buffers stay on one thread.
    not_send: PhantomData<*const ()>,
}

impl RecvBuf {
    pub fn len(&self) -> usize {
        self.len as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Between the starts of buffers beyond their size: with starts a power of two apart, the first lines of all
/// buffers, often the only ones used, would fall into the same few sets of the processor's caches.
const STAGGER_BYTES: usize = 64;

pub(super) struct RecvBuffers {
    /// Start of one mapping: the provided-buffer ring, then the buffers.
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    mapped_bytes: usize,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    /// Buffers the owner holds.
    pub lent: u16,
    /// Tells this ring's buffers from another's.
    ring: u32,
}

static NEXT_RING: AtomicU32 = AtomicU32::new(0);

impl RecvBuffers {
    pub fn register(kernel: &Kernel, count: u16, buffer_bytes: u32) -> io::Result<RecvBuffers> {
        assert!(count.is_power_of_two() && count <= 1 << 15, "the kernel takes 1 to 32768, a power of two");
        let ring_bytes = (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(4096);
        let mapped_bytes = ring_bytes + usize::from(count) * (buffer_bytes as usize + STAGGER_BYTES);
        let start = map(mapped_bytes)?;
        // SAFETY: the mapping is longer than `ring_bytes`.
        let bytes = unsafe { start.add(ring_bytes) };
        let entries = start.cast::<BufRingEntry>();
        let ring = NEXT_RING.fetch_add(1, Ordering::Relaxed);
        let mut buffers =
            RecvBuffers { entries, bytes, mapped_bytes, count, buffer_bytes, tail: 0, lent: 0, ring };
        // SAFETY: the mapping is page-aligned, zeroed, holds `count` entries, and is unmapped only after the
        // group is unregistered (`unregister`); if registering fails the kernel has kept nothing of it.
        unsafe {
            let submitter = kernel.uring().submitter();
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, BUFFER_GROUP, 0)
        }
        .inspect_err(|_| buffers.unmap())?;
        for buffer in 0..count {
            buffers.provide(buffer);
        }
        Ok(buffers)
    }

    /// The buffer the kernel named in a completion: from now on the owner's.
    pub fn take(&mut self, buffer: u16, len: u32) -> RecvBuf {
        assert!(buffer < self.count && len <= self.buffer_bytes, "the kernel fills only what it was given");
        self.lent += 1;
        RecvBuf { ring: self.ring, buffer, len, not_send: PhantomData }
    }

    pub fn bytes<'a>(&'a self, data: &'a RecvBuf) -> &'a [u8] {
        assert_eq!(data.ring, self.ring, "a receive buffer of another ring");
        // SAFETY: `data` came from `take`, so index and length lie within the mapping, the kernel has written
        // these bytes and will not again before `recycle`, which takes `data` by value and so ends the borrow.
        unsafe { std::slice::from_raw_parts(self.start_of(data.buffer).as_ptr(), data.len()) }
    }

    pub fn recycle(&mut self, data: RecvBuf) {
        assert_eq!(data.ring, self.ring, "a receive buffer of another ring");
        self.lent -= 1;
        self.provide(data.buffer);
    }

    /// Buffers the kernel can fill.
    pub fn free(&self) -> u16 {
        self.count - self.lent
    }

    fn start_of(&self, buffer: u16) -> NonNull<u8> {
        let offset = usize::from(buffer) * (self.buffer_bytes as usize + STAGGER_BYTES);
        // SAFETY: `buffer < count` (checked by `take`), so the offset lies within the mapping.
        unsafe { self.bytes.add(offset) }
    }

    fn provide(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let start = self.start_of(buffer).as_ptr() as u64;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `place < count` entries; at most `count` buffers are in the ring, so the kernel has consumed
        // what stood in this place and reads it again only after the tail is published. The tail shares the
        // first entry with fields we set; it is written by us alone and read atomically by the kernel.
        unsafe {
            let entry = &mut *self.entries.add(place).as_ptr();
            entry.set_addr(start);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }

    /// Takes the buffers from the kernel and frees them. Call it when no receive is in flight any more.
    pub fn unregister(&mut self, kernel: &Kernel) -> io::Result<()> {
        kernel.uring().submitter().unregister_buf_ring(BUFFER_GROUP)?;
        self.unmap();
        Ok(())
    }

    fn unmap(&mut self) {
        // SAFETY: start and length are those of the mapping, no slice into it outlives a borrow of `self`, and
        // the callers, at the end of their path, do not use it again.
        let result = unsafe { libc::munmap(self.entries.as_ptr().cast(), self.mapped_bytes) };
        assert_eq!(result, 0, "unmapping our own mapping: {}", io::Error::last_os_error());
    }
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let (protection, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(start.cast()).expect("mmap does not map page zero"))
}
