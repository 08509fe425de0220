//! `status`: every member of the cluster, asked for itself.

use basalt_proto::etcdserverpb::{Member, StatusRequest, StatusResponse};
use basalt_proto::node::{DescribeRequest, DescribeResponse};
use serde_json::{Value, json};

use super::connection::Connector;
use super::table::Table;
use super::{ClusterError, ClusterOptions};

const COLUMNS: &[&str] = &[
    "ID",
    "NAME",
    "ENDPOINT",
    "ROLE",
    "VERSION",
    "TERM",
    "INDEX",
    "APPLIED",
    "LAG",
    "DB SIZE",
    "SYNC P99 MS",
    "ERRORS",
];

/// What one member says.
struct Answer {
    endpoint: String,
    status: Result<StatusResponse, String>,
    /// What only a basalt tells.
    described: Option<DescribeResponse>,
}

/// Asks whoever of `--endpoints` answers who belongs to the cluster, then every member at its own client URL; one that does
/// not answer has a row that says why.
pub(in crate::control) async fn status(options: &ClusterOptions) -> Result<String, ClusterError> {
    let connector = Connector::new(options);
    let members = match connector.any(&options.endpoints).await {
        Ok((_, members)) => members,
        // Without a quorum nobody knows for certain; what each one says of itself is worth the more.
        Err(unreachable) => known_without_quorum(&connector, options).await.ok_or(unreachable)?,
    };
    let asked = members.iter().map(|member| ask(&connector, member));
    let answers = futures_util::future::join_all(asked).await;
    let statuses = answers.iter().filter_map(|answer| answer.status.as_ref().ok());
    let newest = statuses.map(|status| status.raft_index).max().unwrap_or(0);
    let mut table = Table::new(COLUMNS);
    members.iter().zip(&answers).for_each(|(member, answer)| table.push(row(member, answer, newest)));
    Ok(table.text(options.format))
}

/// The members as the first that answers knows them.
async fn known_without_quorum(connector: &Connector, options: &ClusterOptions) -> Option<Vec<Member>> {
    for endpoint in &options.endpoints {
        let Ok(connection) = connector.reach(endpoint).await else { continue };
        let mut cluster = connection.cluster();
        let request = basalt_proto::etcdserverpb::MemberListRequest { linearizable: false };
        if let Ok(answer) = connector.within(cluster.member_list(request)).await {
            return Some(answer.into_inner().members);
        }
    }
    None
}

async fn ask(connector: &Connector, member: &Member) -> Answer {
    let mut answer =
        Answer { endpoint: String::new(), status: Err("it has not started yet".to_owned()), described: None };
    for endpoint in &member.client_urls {
        answer.endpoint.clone_from(endpoint);
        let connection = match connector.reach(endpoint).await {
            Ok(connection) => connection,
            Err(error) => {
                answer.status = Err(error);
                continue;
            }
        };
        let (mut maintenance, mut node) = (connection.maintenance(), connection.node());
        let status = connector.within(maintenance.status(StatusRequest {})).await;
        answer.status = status.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned());
        let described = connector.within(node.describe(DescribeRequest {})).await;
        answer.described = described.ok().map(tonic::Response::into_inner);
        break;
    }
    answer
}

fn row(member: &Member, answer: &Answer, newest: u64) -> Vec<Value> {
    let head = [json!(format!("{:x}", member.id)), json!(member.name), json!(answer.endpoint)];
    let rest: [Value; 9] = match &answer.status {
        Err(error) => {
            let role = if member.is_learner { "learner" } else { "unreachable" };
            let none = Value::Null;
            [
                json!(role),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none.clone(),
                none,
                json!([error]),
            ]
        }
        Ok(status) => {
            let leads = status.leader == member.id;
            let role = if status.is_learner {
                "learner"
            } else if leads {
                "leader"
            } else {
                "follower"
            };
            let p99 = answer.described.as_ref().map(|described| described.log_sync_p99_ns).filter(|ns| *ns > 0);
            [
                json!(role),
                json!(status.version),
                json!(status.raft_term),
                json!(status.raft_index),
                json!(status.raft_applied_index),
                json!(newest.saturating_sub(status.raft_applied_index)),
                json!(status.db_size),
                p99.map_or(Value::Null, |ns| json!(ns as f64 / 1e6)),
                json!(status.errors),
            ]
        }
    };
    head.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_does_not_answer_has_a_row_too() {
        let member = Member { id: 0xab, name: "m".to_owned(), ..Member::default() };
        let answer = Answer { endpoint: "http://m:1".to_owned(), status: Err("refused".to_owned()), described: None };
        let cells = row(&member, &answer, 9);
        assert_eq!((cells.len(), &cells[0], &cells[3]), (COLUMNS.len(), &json!("ab"), &json!("unreachable")));
        assert_eq!(cells.last(), Some(&json!(["refused"])));
        let status = StatusResponse { leader: 0xab, raft_applied_index: 4, ..StatusResponse::default() };
        let described = Some(DescribeResponse { log_sync_p99_ns: 1_500_000, ..DescribeResponse::default() });
        let cells = row(&member, &Answer { status: Ok(status), described, ..answer }, 9);
        assert_eq!((&cells[3], &cells[8], &cells[10]), (&json!("leader"), &json!(5), &json!(1.5)));
    }
}
