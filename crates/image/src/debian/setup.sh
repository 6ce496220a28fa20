#!/bin/sh
# Runs once inside the new system, before it becomes a disk: our own files, settings, programs;
# then everything that would differ from build to build goes.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8

# ---- our own files ----------------------------------------------------------------------------
cd /
busybox cpio -idmu --quiet </twinvm.cpio
rm /twinvm.cpio
for source in /usr/local/src/twinvm/*.c; do
    name=${source##*/}
    gcc -O2 -ffp-contract=off -Wall -Werror -o "/usr/local/bin/${name%.c}" "$source" -lm
done
keys=~root/.ssh/authorized_keys
if [ -e "$keys" ]; then
    chmod 700 "${keys%/*}"
    chmod 600 "$keys"
fi

# ---- settings ---------------------------------------------------------------------------------
passwd -q -d root
echo 'include /etc/redis/twinvm.conf' >>/etc/redis/redis.conf
sed -i -e 's/^-l 127\.0\.0\.1$/-l 0.0.0.0/' -e '/^-l ::1$/d' /etc/memcached.conf
chown postgres:postgres /etc/postgresql/17/main/pg_hba.conf
chmod 640 /etc/postgresql/17/main/pg_hba.conf
systemctl -q enable systemd-networkd.service twinvm-network.service twinvm-ssh-key.service \
    twinvm-up.service
# Nobody waits for a carrier; there is no screen; the host looks after the disk and the clock.
systemctl -q disable systemd-networkd-wait-online.service getty@tty1.service remote-fs.target \
    systemd-pstore.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    fstrim.timer
systemctl -q mask systemd-networkd-wait-online.service systemd-firstboot.service systemd-binfmt.service \
    sshd-keygen.service

# No virtual sockets, no partitions, no hibernation: their generators only cost time.
mkdir -p /etc/systemd/system-generators
for generator in ssh gpt-auto hibernate-resume tpm2; do
    ln -s /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done

# ---- what would differ from build to build ----------------------------------------------------
rm -f /etc/ssh/ssh_host_* /etc/ssl/private/ssl-cert-snakeoil.key \
    /etc/ssl/certs/ssl-cert-snakeoil.pem /var/lib/dbus/machine-id /var/lib/systemd/random-seed \
    /var/lib/systemd/credential.secret /var/cache/ldconfig/aux-cache /etc/*- /etc/.pwd.lock
find /var/log /var/cache/debconf /var/lib/apt/lists /var/cache/apt /tmp /var/tmp /run -type f \
    -delete
find /etc/ssl/certs -xtype l -delete
: >/etc/machine-id
# As if systemd had brought /etc and /var up to date already.
touch /etc/.updated /var/.updated
