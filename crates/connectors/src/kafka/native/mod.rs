//! The only unsafe code of this crate: what the safe binding of librdkafka lacks.
//!
//! - [`fetch`]: batches of messages straight from a partition's queue, decoded from the library's memory without a copy (the
//!   binding hands out one message at a time), by the partition-wise consumer that needs no consumer group.
//! - [`produce`]: a producer whose `flush` and `commit` wake up when the last acknowledgement arrives (the binding's producer
//!   polls its events every 100 ms while it flushes).
//! - [`describe`]: topic ids and allowed operations, which the binding does not know.
//!
//! Ownership: a [`Handle`] is one client of the library and destroys it when the last owner lets go. Everything that points into
//! the client's memory (queues, topics, messages) keeps an `Arc` of it, declared as its last field, so that it is dropped after.
#![deny(unsafe_op_in_unsafe_fn)]
pub(super) mod describe;
pub(super) mod fetch;
pub(super) mod produce;

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::NativeClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr, RDKafkaType};
use rdkafka_sys as sys;

use super::client::log_line;

/// One client of the library.
pub(super) struct Handle(NonNull<sys::rd_kafka_t>);

// SAFETY: librdkafka's handles may be used and destroyed from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above; all calls through a shared handle are locked inside the library.
unsafe impl Sync for Handle {}

impl Handle {
    /// Creates a client. Log lines of the library go to `tracing`.
    fn new(config: &ClientConfig, kind: RDKafkaType) -> Result<Arc<Self>, KafkaError> {
        let native = config.create_native_config()?;
        Self::from_native(native, kind)
    }

    fn from_native(native: NativeClientConfig, kind: RDKafkaType) -> Result<Arc<Self>, KafkaError> {
        let mut error = [0; 512];
        // SAFETY: the configuration is alive; the callback is a plain function that outlives every client. `rd_kafka_new` takes the
        // configuration over exactly if it succeeds.
        let client = unsafe {
            sys::rd_kafka_conf_set_log_cb(native.ptr(), Some(log));
            sys::rd_kafka_new(kind, native.ptr(), error.as_mut_ptr(), error.len())
        };
        match NonNull::new(client) {
            Some(client) => {
                std::mem::forget(native);
                Ok(Arc::new(Self(client)))
            }
            // SAFETY: the library has written a terminated string.
            None => Err(KafkaError::ClientCreation(unsafe { text(error.as_ptr()) })),
        }
    }

    fn ptr(&self) -> *mut sys::rd_kafka_t {
        self.0.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the last owner is gone, and with it everything that points into the client.
        unsafe { sys::rd_kafka_destroy(self.ptr()) }
    }
}

/// A queue of events or messages. The client must be kept alive beside it.
struct Queue(NonNull<sys::rd_kafka_queue_t>);

// SAFETY: queues are locked inside the library.
unsafe impl Send for Queue {}

impl Queue {
    /// # Safety
    /// `client` is alive and outlives the queue.
    unsafe fn new(client: *mut sys::rd_kafka_t) -> Result<Self, KafkaError> {
        // SAFETY: by contract.
        NonNull::new(unsafe { sys::rd_kafka_queue_new(client) })
            .map(Self)
            .ok_or_else(|| KafkaError::ClientCreation("cannot create a queue".to_owned()))
    }

    fn ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.0.as_ptr()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: owned, and the client is alive by contract.
        unsafe { sys::rd_kafka_queue_destroy(self.ptr()) }
    }
}

/// A topic of a client. The client must be kept alive beside it.
struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: topics are locked inside the library.
unsafe impl Send for Topic {}

impl Topic {
    fn new(handle: &Handle, name: &str) -> Result<Self, KafkaError> {
        let name = CString::new(name)?;
        // SAFETY: the handle is alive; no topic configuration of its own.
        NonNull::new(unsafe { sys::rd_kafka_topic_new(handle.ptr(), name.as_ptr(), std::ptr::null_mut()) })
            .map(Self)
            .ok_or_else(|| KafkaError::ClientCreation(last_error()))
    }

    fn ptr(&self) -> *mut sys::rd_kafka_topic_t {
        self.0.as_ptr()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned, and the client is alive by contract.
        unsafe { sys::rd_kafka_topic_destroy(self.ptr()) }
    }
}

unsafe extern "C" fn log(
    _client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    // SAFETY: the library passes terminated strings that live until this returns.
    let (facility, message) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(message)) };
    log_line(level, &facility.to_string_lossy(), &message.to_string_lossy());
}

/// # Safety
/// `pointer` is null or a terminated string.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn code(error: RDKafkaRespErr) -> RDKafkaErrorCode {
    RDKafkaErrorCode::from(error)
}

fn last_error() -> String {
    // SAFETY: no arguments; reads a thread-local.
    code(unsafe { sys::rd_kafka_last_error() }).to_string()
}
