//! A producer, transactional if its configuration has a `transactional.id`.
use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr, RDKafkaType};
use rdkafka_sys as sys;

use super::{Handle, Topic, code, text};

/// The partitioner decides (`RD_KAFKA_PARTITION_UA`).
const UNASSIGNED: i32 = -1;

/// A record that could not be delivered.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct Failure {
    pub topic: String,
    pub partition: i32,
    /// Bytes of key and value.
    pub bytes: usize,
    pub code: RDKafkaErrorCode,
}

/// A call that failed.
#[derive(Clone, Debug)]
pub(in crate::kafka) struct CallError {
    pub code: RDKafkaErrorCode,
    pub message: String,
    /// The producer is of no use any more.
    pub fatal: bool,
}

/// What to write.
pub(in crate::kafka) struct Record<'a> {
    pub topic: &'a str,
    /// `None`: the partitioner decides.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp_ms: Option<i64>,
    pub headers: &'a [(String, Option<Vec<u8>>)],
}

/// First failure since it was last asked for. The library's callback gets a pointer to it.
#[derive(Default)]
struct Failures(Mutex<Option<Failure>>);

/// A producer. Calls may block as long as they are told.
pub(in crate::kafka) struct Producer {
    topics: HashMap<String, Topic>,
    handle: Arc<Handle>,
    /// After `handle`: the callback may run until the client is destroyed.
    failures: Box<Failures>,
}

impl Producer {
    pub(in crate::kafka) fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        let native = config.create_native_config()?;
        let failures = Box::<Failures>::default();
        // SAFETY: `failures` has a stable address and is dropped after the client, whose handle never leaves this struct.
        unsafe {
            sys::rd_kafka_conf_set_opaque(native.ptr(), std::ptr::from_ref::<Failures>(&failures).cast_mut().cast());
            sys::rd_kafka_conf_set_dr_msg_cb(native.ptr(), Some(delivered));
        }
        let handle = Handle::from_native(native, RDKafkaType::RD_KAFKA_PRODUCER)?;
        Ok(Self { topics: HashMap::new(), handle, failures })
    }

    /// Puts a record into the queue, waiting while the queue is full.
    pub(in crate::kafka) fn send(&mut self, record: &Record<'_>) -> Result<(), CallError> {
        if !self.topics.contains_key(record.topic) {
            let topic = Topic::new(&self.handle, record.topic).map_err(|e| CallError {
                code: e.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
                message: e.to_string(),
                fatal: false,
            })?;
            self.topics.insert(record.topic.to_owned(), topic);
        }
        loop {
            match self.enqueue(record) {
                RDKafkaErrorCode::NoError => return Ok(()),
                RDKafkaErrorCode::QueueFull => self.serve(Duration::from_millis(10)),
                code => return Err(CallError { code, message: code.to_string(), fatal: false }),
            }
        }
    }

    fn enqueue(&self, record: &Record<'_>) -> RDKafkaErrorCode {
        let bytes = |b: Option<&[u8]>| b.map_or((std::ptr::null(), 0), |b| (b.as_ptr().cast::<c_void>(), b.len()));
        let (key, key_len) = bytes(record.key);
        let (value, value_len) = bytes(record.value);
        let Some(topic) = self.topics.get(record.topic) else { return RDKafkaErrorCode::UnknownTopic };
        // SAFETY: key and value are copied by the call (`F_COPY`); headers are taken over by the library if it succeeds and
        // destroyed here otherwise; the arguments have the types that their tags ask for.
        unsafe {
            let headers = headers(record.headers);
            let error = sys::rd_kafka_producev(
                self.handle.ptr(),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                topic.ptr(),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                record.partition.unwrap_or(UNASSIGNED),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms.unwrap_or(0),
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                headers,
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            );
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && !headers.is_null() {
                sys::rd_kafka_headers_destroy(headers);
            }
            code(error)
        }
    }

    /// Serves callbacks for at most this long.
    pub(in crate::kafka) fn serve(&self, wait: Duration) {
        // SAFETY: the handle is alive.
        unsafe { sys::rd_kafka_poll(self.handle.ptr(), millis(wait)) };
    }

    /// Waits until everything sent has been delivered or has failed.
    pub(in crate::kafka) fn flush(&self, wait: Duration) -> Result<(), CallError> {
        // SAFETY: the handle is alive.
        match code(unsafe { sys::rd_kafka_flush(self.handle.ptr(), millis(wait)) }) {
            RDKafkaErrorCode::NoError => Ok(()),
            code => Err(CallError { code, message: code.to_string(), fatal: false }),
        }
    }

    pub(in crate::kafka) fn init_transactions(&self, wait: Duration) -> Result<(), CallError> {
        // SAFETY: the handle is alive; the error is owned by `call`.
        unsafe { call(sys::rd_kafka_init_transactions(self.handle.ptr(), millis(wait))) }
    }

    pub(in crate::kafka) fn begin(&self) -> Result<(), CallError> {
        // SAFETY: as above.
        unsafe { call(sys::rd_kafka_begin_transaction(self.handle.ptr())) }
    }

    /// Flushes and commits.
    pub(in crate::kafka) fn commit(&self, wait: Duration) -> Result<(), CallError> {
        // SAFETY: as above.
        unsafe { call(sys::rd_kafka_commit_transaction(self.handle.ptr(), millis(wait))) }
    }

    pub(in crate::kafka) fn abort(&self, wait: Duration) -> Result<(), CallError> {
        // SAFETY: as above.
        unsafe { call(sys::rd_kafka_abort_transaction(self.handle.ptr(), millis(wait))) }
    }

    /// The first record that could not be delivered since the last call.
    pub(in crate::kafka) fn take_failure(&self) -> Option<Failure> {
        self.failures.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // SAFETY: the handle is alive. What is still queued must not be sent by a producer that nobody watches.
        unsafe {
            sys::rd_kafka_purge(self.handle.ptr(), sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT);
        }
    }
}

/// # Safety
/// The result must be handed to the library or destroyed.
unsafe fn headers(list: &[(String, Option<Vec<u8>>)]) -> *mut sys::rd_kafka_headers_t {
    if list.is_empty() {
        return std::ptr::null_mut();
    }
    // SAFETY: the library copies name and value; lengths are those of live slices.
    unsafe {
        let headers = sys::rd_kafka_headers_new(list.len());
        for (name, value) in list {
            let (pointer, len) = value.as_ref().map_or((std::ptr::null(), 0), |v| (v.as_ptr(), v.len()));
            sys::rd_kafka_header_add(
                headers,
                name.as_ptr().cast(),
                name.len().cast_signed(),
                pointer.cast(),
                len.cast_signed(),
            );
        }
        headers
    }
}

/// # Safety
/// `error` is null or an error of which nobody else is the owner.
unsafe fn call(error: *mut sys::rd_kafka_error_t) -> Result<(), CallError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: by contract.
    unsafe {
        let result = CallError {
            code: code(sys::rd_kafka_error_code(error)),
            message: text(sys::rd_kafka_error_string(error)),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(result)
    }
}

fn millis(wait: Duration) -> c_int {
    c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn delivered(
    _client: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: the library passes a live message and the pointer set in `Producer::new`.
    let (message, failures) = unsafe { (&*message, &*opaque.cast_const().cast::<Failures>()) };
    if message.err == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return;
    }
    let mut first = failures.0.lock().unwrap_or_else(PoisonError::into_inner);
    if first.is_none() {
        // SAFETY: the topic of a message is alive; its name is a terminated string.
        let topic = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) };
        *first = Some(Failure {
            topic: topic.to_string_lossy().into_owned(),
            partition: message.partition,
            bytes: message.len + message.key_len,
            code: code(message.err),
        });
    }
}
