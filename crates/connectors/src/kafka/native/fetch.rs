//! Fetching partitions in batches, without a consumer group.
use std::collections::VecDeque;
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr, RDKafkaType};
use rdkafka_sys as sys;

use super::describe::Describing;
use super::{Handle, Queue, Topic, code, last_error, text};

/// A client that fetches the partitions it is asked for.
pub(in crate::kafka) struct Fetcher(Arc<Handle>);

impl Fetcher {
    pub(in crate::kafka) fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        Handle::new(config, RDKafkaType::RD_KAFKA_CONSUMER).map(Self)
    }

    /// Starts to fetch a partition from `offset` on.
    pub(in crate::kafka) fn partition(&self, topic: &str, partition: i32, offset: u64) -> Result<Fetch, KafkaError> {
        let topic = Topic::new(&self.0, topic)?;
        // SAFETY: the handle is alive, and kept beside the queue.
        let queue = unsafe { Queue::new(self.0.ptr()) }?;
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        // SAFETY: topic and queue are alive and kept until `rd_kafka_consume_stop`.
        if unsafe { sys::rd_kafka_consume_start_queue(topic.ptr(), partition, offset, queue.ptr()) } != 0 {
            return Err(KafkaError::ClientCreation(last_error()));
        }
        Ok(Fetch { waiting: VecDeque::new(), buffer: Vec::new(), partition, queue, topic, handle: Arc::clone(&self.0) })
    }

    /// Asks for the ids of topics.
    pub(in crate::kafka) fn describe(&self, topics: &[&str]) -> Result<Describing, KafkaError> {
        Describing::start_owned(Arc::clone(&self.0), topics)
    }

    /// Serves the library's own callbacks; never blocks.
    pub(in crate::kafka) fn serve(&self) {
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_poll(self.0.ptr(), 0) };
    }
}

/// Something that came in the place of messages.
#[derive(Debug)]
pub(in crate::kafka) enum Notice {
    /// Everything before this offset has been handed out, and there is nothing more right now.
    End(u64),
    Error(RDKafkaErrorCode, String),
}

/// One partition that is being fetched, with messages that have been fetched and not yet taken.
pub(in crate::kafka) struct Fetch {
    waiting: VecDeque<Owned>,
    buffer: Vec<*mut sys::rd_kafka_message_t>,
    partition: i32,
    queue: Queue,
    topic: Topic,
    handle: Arc<Handle>,
}

// SAFETY: the raw pointers in `buffer` never live longer than a call of `fill`.
unsafe impl Send for Fetch {}

impl Fetch {
    /// Takes up to `count` messages over from the library and adds them to those that wait; never blocks. Returns whether
    /// anything came.
    pub(in crate::kafka) fn fill(&mut self, count: usize, notices: &mut Vec<Notice>) -> bool {
        self.buffer.clear();
        self.buffer.reserve(count);
        // SAFETY: the buffer has room for `count` pointers, and the library writes as many as it says.
        let got = unsafe {
            let got = sys::rd_kafka_consume_batch_queue(self.queue.ptr(), 0, self.buffer.as_mut_ptr(), count);
            let got = usize::try_from(got).unwrap_or(0).min(count);
            self.buffer.set_len(got);
            got
        };
        for message in self.buffer.drain(..) {
            let Some(message) = NonNull::new(message).map(Owned) else { continue };
            let raw = message.raw();
            match raw.err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => self.waiting.push_back(message),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                    notices.push(Notice::End(u64::try_from(raw.offset).unwrap_or(0)));
                }
                // SAFETY: the message is alive; the library returns a terminated string or null.
                error => notices.push(Notice::Error(code(error), unsafe {
                    text(sys::rd_kafka_message_errstr(message.0.as_ptr()))
                })),
            }
        }
        got > 0
    }

    /// Offset of the first waiting message.
    pub(in crate::kafka) fn next(&self) -> Option<u64> {
        self.waiting.front().map(Owned::offset)
    }

    /// Bytes of the first waiting message's value.
    pub(in crate::kafka) fn next_bytes(&self) -> usize {
        self.waiting.front().map_or(0, |m| m.raw().len)
    }

    /// Moves the first waiting message to `messages`.
    pub(in crate::kafka) fn take(&mut self, messages: &mut Messages) {
        if let Some(message) = self.waiting.pop_front() {
            messages.items.push(message);
        }
    }

    /// Drops the first waiting message.
    pub(in crate::kafka) fn skip(&mut self) {
        self.waiting.pop_front();
    }

    /// An empty list for messages of this partition.
    pub(in crate::kafka) fn messages(&self, capacity: usize) -> Messages {
        Messages { items: Vec::with_capacity(capacity), _handle: Arc::clone(&self.handle) }
    }

    /// Goes on with the first record that the partition still holds. Waiting messages are dropped.
    pub(in crate::kafka) fn restart_at_beginning(&mut self) -> Result<(), KafkaError> {
        self.restart(i64::from(sys::RD_KAFKA_OFFSET_BEGINNING))
    }

    /// Goes on at `offset` with a new request. Waiting messages are dropped.
    pub(in crate::kafka) fn restart_at(&mut self, offset: u64) -> Result<(), KafkaError> {
        self.restart(i64::try_from(offset).unwrap_or(i64::MAX))
    }

    fn restart(&mut self, offset: i64) -> Result<(), KafkaError> {
        self.waiting.clear();
        // SAFETY: topic and queue are alive. A partition whose fetching has failed cannot seek, so it is stopped and started.
        let started = unsafe {
            sys::rd_kafka_consume_stop(self.topic.ptr(), self.partition);
            sys::rd_kafka_consume_start_queue(self.topic.ptr(), self.partition, offset, self.queue.ptr())
        };
        if started == 0 { Ok(()) } else { Err(KafkaError::ClientCreation(last_error())) }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // SAFETY: started in `Fetcher::partition`; topic and queue are still alive.
        unsafe { sys::rd_kafka_consume_stop(self.topic.ptr(), self.partition) };
    }
}

/// A message of the library. The client must be kept alive beside it.
struct Owned(NonNull<sys::rd_kafka_message_t>);

// SAFETY: a message belongs to whoever holds it and may be destroyed from any thread.
unsafe impl Send for Owned {}

impl Owned {
    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: owned and not yet destroyed.
        unsafe { self.0.as_ref() }
    }

    fn offset(&self) -> u64 {
        u64::try_from(self.raw().offset).unwrap_or(0)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// Who gave a record its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum TimestampType {
    Absent,
    Create,
    LogAppend,
}

/// Messages in the library's memory, freed when this is dropped.
pub(in crate::kafka) struct Messages {
    items: Vec<Owned>,
    _handle: Arc<Handle>,
}

impl Messages {
    pub(in crate::kafka) fn len(&self) -> usize {
        self.items.len()
    }

    pub(in crate::kafka) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(in crate::kafka) fn offset(&self, index: usize) -> u64 {
        self.items[index].offset()
    }

    /// The value; `None` for a tombstone.
    pub(in crate::kafka) fn value(&self, index: usize) -> Option<&[u8]> {
        let raw = self.items[index].raw();
        // SAFETY: the message is not destroyed while `self` is borrowed.
        unsafe { bytes(raw.payload, raw.len) }
    }

    pub(in crate::kafka) fn key(&self, index: usize) -> Option<&[u8]> {
        let raw = self.items[index].raw();
        // SAFETY: the message is not destroyed while `self` is borrowed.
        unsafe { bytes(raw.key, raw.key_len) }
    }

    /// The timestamp in milliseconds.
    pub(in crate::kafka) fn timestamp(&self, index: usize) -> (Option<i64>, TimestampType) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive.
        let ms = unsafe { sys::rd_kafka_message_timestamp(self.items[index].0.as_ptr(), &raw mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => (None, TimestampType::Absent),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => (Some(ms), TimestampType::Create),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => (Some(ms), TimestampType::LogAppend),
        }
    }

    /// Calls `each` with the name and value of every header, in order.
    pub(in crate::kafka) fn headers(&self, index: usize, mut each: impl FnMut(&str, Option<&[u8]>)) {
        let message = self.items[index].0.as_ptr();
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is alive. The library parses its headers at the first call and keeps them in the message; messages are
        // not shared between threads, since `Messages` is not `Sync`.
        if code(unsafe { sys::rd_kafka_message_headers(message, &raw mut headers) }) != RDKafkaErrorCode::NoError {
            return;
        }
        for at in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers belong to the message, which is alive; name and value point into them.
            unsafe {
                let found = sys::rd_kafka_header_get_all(headers, at, &raw mut name, &raw mut value, &raw mut size);
                if code(found) != RDKafkaErrorCode::NoError || name.is_null() {
                    return;
                }
                each(&CStr::from_ptr(name).to_string_lossy(), bytes(value, size));
            }
        }
    }
}

/// # Safety
/// `pointer` is null, or points to `len` bytes that live as long as `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Option<&'a [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: by contract.
    Some(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}
