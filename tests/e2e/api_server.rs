//! The API server is away for a minute.

use crate::support::{Team, figure, install, world};
use crate::traffic::{Traffic, fires};
use anyhow::Result;
use std::time::{Duration, Instant};

#[tokio::test]
async fn deliveries_go_on_without_the_api_server_and_everything_converges_after() -> Result<()> {
    let Some((world, _guard)) = world("a minute without the API server").await? else { return Ok(()) };
    if world.cluster.is_external() {
        figure("left out: a minute without the API server, because an existing cluster's is not ours to stop");
        return Ok(());
    }
    install(world, &[]).await?;
    let team = Team::new(world, "away").await?;
    team.subscribe("acme-web").await?;
    let (url, secret) = team.callback("acme-web").await?;
    fires(&url, &secret, &team.runner).await?;

    let traffic = Traffic::start(&url, &secret, "away")?;
    traffic.goes_on(50, Duration::from_secs(20)).await?;
    world.cluster.control_plane.stop_api_server().await?;
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(60) {
        traffic.goes_on(100, Duration::from_secs(20)).await?;
        team.push_arrives(&format!("{}.txt", stopped.elapsed().as_millis())).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    world.cluster.control_plane.start_api_server().await?;
    let back = Instant::now();
    team.subscribe("another").await?;
    figure(&format!(
        "API server away for {:.0} s; a new Subscription was ready {:.1} s after its return",
        stopped.elapsed().as_secs_f64() - back.elapsed().as_secs_f64(),
        back.elapsed().as_secs_f64()
    ));
    let tally = traffic.stop().await?;
    tally.all_arrive(&team.runner, Duration::from_secs(60)).await?;
    team.delete().await
}
