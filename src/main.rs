//! Belay.
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().with_env_filter("belay=debug").init();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("operator") => {
            let r = belay::operator::run(belay::operator::Options {
                target: belay::cluster::Target::default(),
                namespace: args.get(2).cloned(),
                listen: Some("127.0.0.1:18080".parse().unwrap()),
                lease_namespace: "belay-system".into(),
                lease_name: "belay".into(),
                brake: "brake.belay.dev".into(),
                instance: "dev".into(),
            })
            .await;
            println!("{r:?}");
        }
        _ => {
            for (f, s) in belay::install::files().unwrap() {
                std::fs::write(format!("manifests/{f}"), s).unwrap();
            }
        }
    }
}
