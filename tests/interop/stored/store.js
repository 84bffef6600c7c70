// The persistent peer store of js-libp2p 0.30.13 on a folder of datastore-fs 3.0.2.
const fs = require('node:fs')
const path = require('node:path')
const DatastoreFs = require('datastore-fs')
const Envelope = require('libp2p/src/record/envelope')
const PeerRecord = require('libp2p/src/record/peer-record')
const PersistentPeerStore = require('libp2p/src/peer-store/persistent')
const multiaddr = require('multiaddr')
const PeerId = require('peer-id')
const { send, serve, hex, unhex } = require('../lines.cjs')

// datastore-fs lists one folder only, and finds nothing for the prefix that the peer store asks for. Which files are
// there is said for it; keys and values are still its own.
class Datastore extends DatastoreFs {
  async * _all ({ prefix }) {
    const folders = [path.join(this.path, prefix)]
    for (let folder; (folder = folders.pop()) != null;) {
      const entries = fs.existsSync(folder) ? fs.readdirSync(folder, { withFileTypes: true }) : []
      for (const entry of entries) {
        const at = path.join(folder, entry.name)
        if (entry.isDirectory()) {
          folders.push(at)
        } else if (path.extname(at) === this.opts.extension) {
          const key = this._decode(at)
          yield { key, value: await this.get(key) }
        }
      }
    }
  }
}

let store

const show = ({ id, addresses, protocols, metadata }) => {
  const entry = store.addressBook.data.get(id.toB58String())
  const record = entry?.record
  // A key that the peer id holds is not in the book until somebody puts it there.
  const publicKey = store.keyBook.get(id) ?? id.pubKey
  return {
    id: id.toB58String(),
    addresses: addresses.map(({ multiaddr }) => hex(multiaddr.bytes)),
    certified: addresses.map(({ isCertified }) => isCertified),
    record: record == null ? null : { seq: record.seqNumber, raw: hex(record.raw) },
    protocols,
    publicKey: publicKey == null ? null : hex(publicKey.bytes),
    metadata: Object.fromEntries([...metadata ?? []].map(([name, value]) => [name, hex(value)]))
  }
}

const addresses = (list) => list.map((bytes) => multiaddr(unhex(bytes)))
const id = (peer) => PeerId.createFromB58String(peer)

serve({
  open: async ({ folder }) => {
    const datastore = new Datastore(folder)
    await datastore.open()
    // What is changed is written by `close`, and at no other time.
    store = new PersistentPeerStore({ peerId: await PeerId.create({ keyType: 'Ed25519' }), datastore, threshold: Infinity })
    await store.start()
  },
  close: async () => { await store.stop() },
  peers: () => [...store.peers.values()].map(show),
  // A peer of which everything is known; the addresses come in a record that it signed.
  make: async ({ keyType, addresses: list, protocols, metadata }) => {
    const peer = await PeerId.create({ keyType, bits: 2048 })
    const stranger = PeerId.createFromBytes(peer.toBytes())
    const record = new PeerRecord({ peerId: peer, multiaddrs: addresses(list) })
    if (!store.addressBook.consumePeerRecord(await Envelope.seal(record, peer))) {
      throw new Error('the record was refused')
    }
    store.keyBook.set(stranger, peer.pubKey)
    store.protoBook.set(stranger, protocols)
    for (const [name, value] of Object.entries(metadata)) store.metadataBook.set(stranger, name, unhex(value))
    return peer.toB58String()
  },
  add: ({ peer, addresses: list }) => { store.addressBook.add(id(peer), addresses(list)) },
  speaks: ({ peer, protocols }) => { store.protoBook.set(id(peer), protocols) },
  // Who signed the record that it holds of a peer, by its own check of the signature.
  signer: async ({ peer }) => {
    const raw = store.addressBook.getRawEnvelope(id(peer))
    return (await Envelope.openAndCertify(raw, 'libp2p-peer-record')).peerId.toB58String()
  }
})

send({ event: 'ready' })
