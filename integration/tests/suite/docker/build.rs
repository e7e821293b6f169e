//! `docker build`, by the classic builder: its steps run with the daemon's default runtime. The same Dockerfile is built by an
//! engine whose default is the program under test and by one whose default is runc; what is printed, how it ends and what
//! is in the layers must be the same.

use super::compare;
use integration::engine::{by_default_runc, engine};

/// `build FLAGS`: builds the folder `$N`, without ids and the client's advice. `layers`: all that the steps put
/// into the image, but for times.
const WORDS: &str = r#"
build() { $D build --no-cache --force-rm "$@" -t $N $N 2>$N/errors | sed -E 's/\b[0-9a-f]{12}\b/ID/g'; echo "status ${PIPESTATUS[0]}"
  grep -v -e DEPRECATED -e '^  ' -e '^$' $N/errors | sed 's/OCI runtime.*exec: /exec: /'; }
layers() { rm -rf $N/image; mkdir $N/image; $D save $N | tar -x -C $N/image
  for layer in $(jq -r '.[0].Layers[1:][]' $N/image/manifest.json); do
    echo layer; tar --numeric-owner --xattrs --xattrs-include='*' -tvvf $N/image/$layer | sed -E 's/ [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{5} / /'
    tar -xOf $N/image/$layer | sha256sum
  done; }
mkdir -p $N"#;

#[track_caller]
fn like_runc(name: &str, script: &str) {
    match engine().and_then(|ours| Ok((ours, by_default_runc()?))) {
        Ok((ours, peer)) => compare(name, &format!("{WORDS}\n{script}"), (ours, "tested"), peer),
        Err(reason) => integration::skip!("{reason}"),
    }
}

/// What a step finds, and what it leaves: files, owners, modes, links, nodes, and what is taken away again.
#[test]
fn steps_and_layers() {
    like_runc(
        "build",
        r#"cat >$N/Dockerfile <<'END'
FROM box
ARG B=none
ENV A=1 B=$B
WORKDIR /new/folder
COPY file script ./
COPY --chown=1000:2000 file /owned
RUN exec 2>&1; pwd; id; env | grep -v HOSTNAME | sort; umask; cat file; ./script; ls /proc/self/fd /dev | sort; \
    grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/limits; cat /proc/self/oom_score_adj; \
    cut -d' ' -f5,6 /proc/self/mountinfo | grep -v -e /proc/kcore -e /proc/keys -e /proc/timer_list -e 'cgroup r[ow]' | sort
RUN echo a >/etc/a; mkdir -p /var/x/y; echo b >/var/x/y/b; chown 5:6 /var/x/y /var/x/y/b; chmod 4750 /var/x/y/b; \
    ln -s a /etc/link; ln /etc/a /etc/hard; mkfifo -m 600 /pipe; mknod /null c 1 3; mkdir -m 1777 /sticky; \
    echo gone >/dev/shm/gone; echo kept >/tmp/kept; rm /owned
VOLUME /volume
RUN rm -r /var/x; mv /etc/a /etc/moved; echo 'not kept' >/volume/file
USER 1000:2000
RUN exec 2>&1; id; touch /x; touch /sticky/mine; grep CapEff /proc/self/status
USER user
RUN ["id"]
SHELL ["/bin/sh", "-ec"]
RUN false || echo "another shell"
CMD ["cat", "/etc/moved"]
END
        echo 'from the context' >$N/file; printf '#!/bin/sh\necho "a script: $0"\n' >$N/script; chmod 755 $N/script
        build --build-arg B=2; layers
        $D inspect -f '{{json .Config.Env}} {{json .Config.User}} {{.Config.WorkingDir}} {{json .Config.Cmd}} {{json .Config.Volumes}}' $N
        $D run --rm --runtime $R $N; $D run --rm --runtime $R $N ls -ln /etc/hard /sticky/mine /tmp/kept | tr -s ' ' | cut -d' ' -f1-5,9"#,
    );
}

/// A step that fails ends the build with the step's status; nothing is left of it.
#[test]
fn steps_that_fail() {
    like_runc(
        "failing",
        r#"for step in 'echo made >/made && exit 9' '["no-such-program"]' '["/etc/passwd"]'; do
            printf 'FROM box\nRUN %s\nRUN echo never\n' "$step" >$N/Dockerfile; build
        done
        $D images -q $N | wc -l; $D ps -a --format '{{.Command}}' | grep -c -e never -e made"#,
    );
}

/// What the builder's flags ask for, which becomes the step's config.json.
#[test]
fn steps_with_limits() {
    like_runc(
        "limited",
        r#"cat >$N/Dockerfile <<'END'
FROM box
RUN ulimit -Sn; ulimit -Hn; ulimit -c; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; ip -o link | wc -l; grep mine /etc/hosts; \
    cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus \
    memory.max memory.swap.max cpu.weight cpu.max cpuset.cpus 2>/dev/null; grep -o 'buildparent[^/]*' /proc/self/cgroup | sort -u
RUN tail /dev/zero
END
        if [ -d /run/systemd/system ]; then p=buildparent.slice; else p=/$(basename $(dirname $PWD))/buildparent; fi
        build --network none --memory 16m --memory-swap 16m --cpu-shares 512 --cpu-period 100000 --cpu-quota 50000 --cpuset-cpus 0 \
            --ulimit nofile=123:456 --ulimit core=0 --shm-size 8m --add-host mine:10.1.2.3 --cgroup-parent $p
        printf 'FROM box\nRUN readlink /proc/self/ns/net\n' >$N/Dockerfile; build --network host
        build --security-opt seccomp=unconfined"#,
    );
}
