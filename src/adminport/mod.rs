//! The admin port: what the node says of itself over HTTP, `/metrics`, `/healthz` and `/readyz`.
//!
//! A thread of its own with a place among the cores' lanes; it asks them and shows what they tell. It must
//! not know how a command runs, and nothing waits for it: a core is asked at most one thing at a time.

mod cores;
mod metrics;
mod page;
mod process;

pub use cores::Cores;
pub use metrics::Facts;

use crate::error::Fault;
use crate::limits;
use crate::metrics::CoreReport;
use crate::shard::mesh::{Ask, Tell};
use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::Semaphore;

/// What the port shows once the cores serve.
pub struct Attached {
    pub cores: Cores,
    pub facts: Facts,
}

/// Starts to answer; until something is sent through what it returns, the node is alive and not ready.
pub fn start(listener: TcpListener) -> Result<Sender<Attached>, Fault> {
    let failed = |error: io::Error| Fault::new("starting the admin port", error);
    listener.set_nonblocking(true).map_err(failed)?;
    let (attach, attached) = channel();
    let run = move || {
        if let Err(error) = serve(listener, attached) {
            tracing::error!(%error, "the admin port has ended");
        }
    };
    std::thread::Builder::new().name("admin".into()).spawn(run).map_err(failed)?;
    Ok(attach)
}

fn serve(listener: TcpListener, attached: Receiver<Attached>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let pages = Rc::new(RefCell::new(Pages { attached: None, waiting: attached }));
    let accept = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let room = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
        loop {
            let place = room.clone().acquire_owned().await.expect("nobody closes the semaphore");
            let socket = match listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(%error, "accepting on the admin port failed");
                    tokio::time::sleep(limits::ADMIN_ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let pages = pages.clone();
            tokio::task::spawn_local(async move {
                let answer = service_fn(move |request| {
                    let page = pages.borrow_mut().answer(&request);
                    async move { Ok::<_, Infallible>(page) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits::ADMIN_REQUEST_WAIT)
                    .serve_connection(TokioIo::new(socket), answer);
                if let Ok(Err(error)) = tokio::time::timeout(limits::ADMIN_CONNECTION_WAIT, served).await {
                    tracing::debug!(%error, "a connection to the admin port ended");
                }
                drop(place);
            });
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, accept)
}

struct Pages {
    attached: Option<Attached>,
    waiting: Receiver<Attached>,
}

type Page = Response<Full<Bytes>>;

impl Pages {
    fn answer<B>(&mut self, request: &Request<B>) -> Page {
        if self.attached.is_none() {
            self.attached = self.waiting.try_recv().ok();
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        }
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/healthz" => self.health(),
            "/readyz" => self.readiness(),
            "/" => text(StatusCode::OK, "/metrics\n/healthz\n/readyz\n".into()),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".into()),
        }
    }

    /// Alive: starting, or every core answers.
    fn health(&mut self) -> Page {
        match &mut self.attached {
            None => text(StatusCode::OK, "starting\n".into()),
            Some(attached) => match attached.cores.reports(Ask::Stats) {
                Ok(_) => text(StatusCode::OK, "ok\n".into()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            },
        }
    }

    /// Ready: every core answers, and every shard takes writes.
    fn readiness(&mut self) -> Page {
        let Some(attached) = &mut self.attached else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "starting: recovering the logs\n".into());
        };
        let reports = match attached.cores.reports(Ask::Stats) {
            Ok(reports) => reports,
            Err(why) => return text(StatusCode::SERVICE_UNAVAILABLE, why),
        };
        let shards = reports.iter().flat_map(|report| &report.stats.shards);
        let full: String = shards
            .filter(|shard| shard.full)
            .map(|shard| format!("shard {} refuses writes: its disk is full\n", shard.shard))
            .collect();
        match full.is_empty() {
            true => text(StatusCode::OK, "ready\n".into()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, full),
        }
    }

    fn metrics(&mut self) -> Page {
        let Some(attached) = &mut self.attached else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "starting: recovering the logs\n".into());
        };
        match attached.cores.reports(Ask::Report) {
            Ok(reports) => text(StatusCode::OK, metrics::page(&attached.facts, &reports)),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }
}

impl Cores {
    /// What every core tells of itself, in their order; else which do not answer.
    fn reports(&mut self, ask: Ask) -> Result<Vec<CoreReport>, String> {
        let report = |tell| match tell {
            Tell::Report(report) => *report,
            Tell::Stats(stats) => CoreReport { stats: *stats, ..CoreReport::default() },
            _ => unreachable!("a core answers with the variant its question calls for"),
        };
        Ok(self.ask(&ask)?.into_iter().map(report).collect())
    }
}

fn text(status: StatusCode, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    page.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    page
}
