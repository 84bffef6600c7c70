// A node of js-libp2p on the loopback interface: TCP, Noise, Yamux, identify, ping, and a server of Kademlia.
import { generateKeyPair, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { CODE_P2P, multiaddr } from '@multiformats/multiaddr'
import { MemoryDatastore } from 'datastore-core/memory'
import { Key } from 'interface-datastore/key'
import { createLibp2p } from 'libp2p'
import lines from '../lines.cjs'

const { send, serve, hex, unhex } = lines

// Ed25519, secp256k1 or RSA.
const privateKey = await generateKeyPair(process.argv[2] ?? 'Ed25519')

const datastore = new MemoryDatastore()

const node = await createLibp2p({
  privateKey,
  datastore,
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  // Nothing but the loopback interface is ever dialled.
  connectionGater: {
    denyDialMultiaddr: (address) => !address.toString().startsWith('/ip4/127.0.0.1/')
  },
  services: {
    identify: identify(),
    identifyPush: identifyPush(),
    ping: ping(),
    dht: kadDHT({
      protocol: '/ipfs/kad/1.0.0',
      clientMode: false,
      allowQueryWithZeroPeers: true,
      peerInfoMapper: passthroughMapper
    })
  }
})

// Whom it would name to others: it has answered a ping.
node.services.dht.routingTable.addEventListener('peer:add', ({ detail }) => send({ event: 'routed', id: detail.toString() }))

const text = (bytes) => bytes == null ? null : Buffer.from(bytes).toString()

const show = (peer) => ({
  id: peer.id.toString(),
  addresses: peer.addresses.map(({ multiaddr }) => multiaddr.toString()).sort(),
  protocols: [...peer.protocols].sort(),
  agent: text(peer.metadata.get('AgentVersion')),
  protocolVersion: text(peer.metadata.get('ProtocolVersion')),
  publicKey: peer.id.publicKey == null ? null : hex(publicKeyToProtobuf(peer.id.publicKey)),
  record: peer.peerRecordEnvelope == null ? null : hex(peer.peerRecordEnvelope)
})

// What it learns: what its store says of a peer, and that all that identify had to say is in it.
node.addEventListener('peer:update', ({ detail }) => send({ event: 'peer', ...show(detail.peer) }))
node.addEventListener('peer:identify', ({ detail }) => send({ event: 'identified', id: detail.peerId.toString() }))

serve({
  // What it says of itself to its peers, by identify.
  self: async () => ({
    ...show(await node.peerStore.get(node.peerId)),
    addresses: node.getMultiaddrs().map((address) => address.decapsulateCode(CODE_P2P).toString()).sort()
  }),
  dial: async ({ address }) => { await node.dial(multiaddr(address)) },
  // Once more, and without hiding why not.
  identify: async ({ peer }) => {
    const [connection] = node.getConnections(peerIdFromString(peer))
    await node.services.identify.identify(connection)
  },
  handle: async ({ protocol }) => { await node.handle(protocol, (stream) => stream.close()) },
  unhandle: async ({ protocol }) => { await node.unhandle(protocol) },
  find: async ({ peer }) => {
    const found = await node.peerRouting.findPeer(peerIdFromString(peer))
    return found.multiaddrs.map(String).sort()
  },
  consume: async ({ record }) => node.peerStore.consumePeerRecord(unhex(record)),
  // What stands in its datastore about peers, and what it lists of that.
  entries: async () => {
    const entries = []
    for await (const { key, value } of datastore.query({ prefix: '/peers/' })) entries.push([key.toString(), hex(value)])
    return entries
  },
  put: async ({ key, value }) => { await datastore.put(new Key(key), unhex(value)) },
  list: async () => (await node.peerStore.all()).map(({ id }) => id.toString()),
  peer: async ({ peer }) => show(await node.peerStore.get(peerIdFromString(peer)))
})

send({ event: 'ready' })
