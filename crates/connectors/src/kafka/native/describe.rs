//! Ids and allowed operations of topics.
use std::ffi::{CString, c_int};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka_sys as sys;

use super::{Handle, Queue, code, text};

/// Limit of one request, in milliseconds.
const REQUEST_MS: c_int = 5_000;

/// A topic as the cluster sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kafka) struct TopicDescription {
    pub name: String,
    pub error: Option<RDKafkaErrorCode>,
    /// Differs from that of an earlier topic of the same name; empty if the brokers are too old to have ids.
    pub id: String,
    /// Whether this client may write; `None` if the cluster does not say.
    pub may_write: Option<bool>,
}

/// A request that is under way.
pub(in crate::kafka) struct Describing {
    queue: Queue,
    /// Keeps the client alive, where it is not borrowed.
    _handle: Option<Arc<Handle>>,
}

/// Describes topics, waiting for the answer.
pub(in crate::kafka) fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
) -> Result<Vec<TopicDescription>, KafkaError> {
    // SAFETY: the client is borrowed until the answer is here and the queue is dropped.
    let request = unsafe { Describing::start(client.native_ptr(), topics, None) }?;
    let limit = Duration::from_millis(REQUEST_MS.unsigned_abs().into()) + Duration::from_secs(1);
    request.poll(limit).unwrap_or(Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut)))
}

impl Describing {
    pub(super) fn start_owned(handle: Arc<Handle>, topics: &[&str]) -> Result<Self, KafkaError> {
        let client = handle.ptr();
        // SAFETY: the handle is kept in the result.
        unsafe { Self::start(client, topics, Some(handle)) }
    }

    /// # Safety
    /// `client` is alive and outlives the result.
    unsafe fn start(
        client: *mut sys::rd_kafka_t,
        topics: &[&str],
        handle: Option<Arc<Handle>>,
    ) -> Result<Self, KafkaError> {
        let names: Vec<CString> = topics.iter().map(|t| CString::new(*t)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
        // SAFETY: the client is alive by contract; names and collection live until the request has been enqueued, which copies them.
        unsafe {
            let queue = Queue::new(client)?;
            let options =
                sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_MS, std::ptr::null_mut(), 0);
            let refused = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            if !refused.is_null() {
                sys::rd_kafka_error_destroy(refused);
            }
            let collection = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(client, collection, options, queue.ptr());
            sys::rd_kafka_TopicCollection_destroy(collection);
            sys::rd_kafka_AdminOptions_destroy(options);
            Ok(Self { queue, _handle: handle })
        }
    }

    /// The answer, if it comes within `wait`.
    pub(in crate::kafka) fn poll(&self, wait: Duration) -> Option<Result<Vec<TopicDescription>, KafkaError>> {
        let wait = c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive; the event is destroyed after everything has been copied out of it.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue.ptr(), wait);
            if event.is_null() {
                return None;
            }
            let result = read(event);
            sys::rd_kafka_event_destroy(event);
            Some(result)
        }
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Result<Vec<TopicDescription>, KafkaError> {
    // SAFETY: by contract; all pointers read here belong to the event.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(code(error)));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        Ok((0..count).map(|i| description(*topics.add(i))).collect())
    }
}

/// # Safety
/// `topic` is a live description.
unsafe fn description(topic: *const sys::rd_kafka_TopicDescription_t) -> TopicDescription {
    // SAFETY: by contract; all pointers read here belong to the description.
    unsafe {
        let error = match code(sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic))) {
            RDKafkaErrorCode::NoError => None,
            error => Some(error),
        };
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        let known = !uuid.is_null()
            && (sys::rd_kafka_Uuid_most_significant_bits(uuid) != 0
                || sys::rd_kafka_Uuid_least_significant_bits(uuid) != 0);
        let mut count = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        let may_write = (!operations.is_null() && count > 0).then(|| {
            (0..count)
                .any(|i| *operations.add(i) as u32 == sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as u32)
        });
        TopicDescription {
            name: text(sys::rd_kafka_TopicDescription_name(topic)),
            error,
            id: if known { text(sys::rd_kafka_Uuid_base64str(uuid)) } else { String::new() },
            may_write,
        }
    }
}
